package org.opensearch.personalize;

import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

import org.opensearch.ExceptionsHelper;
import org.opensearch.action.ActionRequest;
import org.opensearch.action.search.SearchAction;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.support.ActionFilter;
import org.opensearch.action.support.ActionFilterChain;
import org.opensearch.action.support.ActionRequestMetadata;
import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.action.ActionResponse;
import org.opensearch.core.rest.RestStatus;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.tasks.CancellableTask;
import org.opensearch.tasks.Task;

/**
 * Does for searches what no processor can.
 *
 * <p>It tells processors the search's task, without which a cancelled search would go on waiting
 * for the sidecar. And it hears of a failure, after which no processor runs: a search that fails
 * once it is widened runs again as the client sent it, because the failure may be about hits, or a
 * field, that only the plugin asked for.
 */
final class SearchFilter implements ActionFilter {

    private static final String KEY = "personalize.search";

    private final NodeServices services;
    private final ThreadContext threadContext;

    SearchFilter(NodeServices services) {
        this.services = services;
        this.threadContext = services.threadContext();
    }

    /** Returns the search that this thread works for; null when none came by this filter. */
    static RunningSearch running(ThreadContext threadContext) {
        return threadContext.getTransient(KEY);
    }

    @Override
    public int order() {
        return Integer.MAX_VALUE; // innermost: whatever may refuse the search comes first
    }

    @Override
    public <Request extends ActionRequest, Response extends ActionResponse> void apply(
        Task task,
        String action,
        Request request,
        ActionRequestMetadata<Request, Response> metadata,
        ActionListener<Response> listener,
        ActionFilterChain<Request, Response> chain
    ) {
        if (SearchAction.NAME.equals(action)
            && request instanceof SearchRequest search
            && task instanceof CancellableTask cancellable) {
            var running = new RunningSearch(cancellable, search instanceof Repeated);
            var heard = orAsSent(listener, running, new Repeated(search));
            // A search may start others (multi-search, terms lookup): each has its own task.
            ThreadContext.StoredContext before = threadContext.newStoredContext(true, List.of(KEY));
            try {
                threadContext.putTransient(KEY, running);
                chain.proceed(task, action, request, heard);
            } finally {
                before.restore();
            }
        } else {
            chain.proceed(task, action, request, listener);
        }
    }

    @SuppressWarnings("unchecked") // a search's listener takes search responses
    private <Response> ActionListener<Response> orAsSent(
        ActionListener<Response> listener,
        RunningSearch running,
        SearchRequest asSent
    ) {
        Supplier<ThreadContext.StoredContext> context = threadContext.newRestorableContext(true);
        return ActionListener.delegateResponse(listener, (caller, failure) -> {
            if (running.isWidened() == false
                || running.task().isCancelled()
                || isAboutTheSearch(ExceptionsHelper.status(failure)) == false) {
                caller.onFailure(failure);
                return;
            }
            asSent.setParentTask(
                services.clusterService().localNode().getId(),
                running.task().getId()
            );
            ThreadContext.StoredContext before = context.get();
            try {
                services.client().search(asSent, (ActionListener<SearchResponse>) caller);
            } finally {
                before.restore();
            }
        });
    }

    /** Returns false for what is the same whatever is searched for, such as a busy node. */
    static boolean isAboutTheSearch(RestStatus status) {
        return status == RestStatus.BAD_REQUEST || status == RestStatus.INTERNAL_SERVER_ERROR;
    }

    /** A search as the client sent it, whatever processors make of the original. */
    private static final class Repeated extends SearchRequest {

        Repeated(SearchRequest search) {
            super(search);
            pipeline(search.pipeline());
            SearchSourceBuilder source = search.source();
            if (source != null) {
                Map<String, Object> ownPipeline = source.searchPipelineSource();
                source(source.shallowCopy().searchPipelineSource(ownPipeline));
            }
        }
    }
}
