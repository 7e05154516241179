package org.opensearch.personalize;

import java.util.List;

import org.opensearch.action.ActionRequest;
import org.opensearch.action.search.SearchAction;
import org.opensearch.action.support.ActionFilter;
import org.opensearch.action.support.ActionFilterChain;
import org.opensearch.action.support.ActionRequestMetadata;
import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.action.ActionResponse;
import org.opensearch.tasks.CancellableTask;
import org.opensearch.tasks.Task;

/**
 * Remembers a search's task in the thread context: processors are not told it, and without it a
 * cancelled search would go on waiting for the sidecar.
 */
final class SearchTaskFilter implements ActionFilter {

    private static final String KEY = "personalize.task";

    private final ThreadContext threadContext;

    SearchTaskFilter(ThreadContext threadContext) {
        this.threadContext = threadContext;
    }

    static CancellableTask currentTask(ThreadContext threadContext) {
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
        if (SearchAction.NAME.equals(action) == false || task instanceof CancellableTask == false) {
            chain.proceed(task, action, request, listener);
            return;
        }
        // A search may start others (multi-search, terms lookup): each has its own task.
        ThreadContext.StoredContext before = threadContext.newStoredContext(true, List.of(KEY));
        try {
            threadContext.putTransient(KEY, task);
            chain.proceed(task, action, request, listener);
        } finally {
            before.restore();
        }
    }
}
