package org.opensearch.personalize;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;

import org.opensearch.action.ActionRequest;
import org.opensearch.action.ActionType;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.action.ActionResponse;
import org.opensearch.test.client.NoOpClient;
import org.opensearch.threadpool.ThreadPool;

/** Answers the searches that a processor makes itself with a function. */
final class EngineClient extends NoOpClient {

    final List<SearchRequest> searches = new ArrayList<>();
    Function<SearchRequest, SearchResponse> engine = request -> {
        throw new IllegalStateException("no search expected");
    };

    EngineClient(ThreadPool threadPool) {
        super(threadPool);
    }

    @Override
    @SuppressWarnings("unchecked") // only searches are asked for
    protected <Request extends ActionRequest, Response extends ActionResponse> void doExecute(
        ActionType<Response> action,
        Request request,
        ActionListener<Response> listener
    ) {
        SearchRequest search = (SearchRequest) request;
        searches.add(search);
        SearchResponse response;
        try {
            response = engine.apply(search);
        } catch (RuntimeException e) {
            listener.onFailure(e);
            return;
        }
        listener.onResponse((Response) response);
    }
}
