package org.opensearch.personalize;

import java.util.List;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.core.action.ActionListener;
import org.opensearch.search.SearchHit;
import org.opensearch.search.SearchHits;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.pipeline.SearchPipelineService;

/**
 * Gets the hits of a page whose window was fetched lean; as the same user, from the same copies,
 * without any pipeline.
 */
final class PageFetch {

    private final NodeServices services;

    PageFetch(NodeServices services) {
        this.services = services;
    }

    /**
     * Fetches a page.
     *
     * @param page lean hits
     * @param listener gets the page with whole hits; null when it cannot be had this way, because
     *     a hit was changed in between
     */
    void page(
        SearchRequest request,
        SearchPlan plan,
        SearchHits page,
        ActionListener<SearchHits> listener
    ) {
        String field = plan.config().itemIdField();
        SearchHit[] wanted = page.getHits();
        List<String> ids = LeanFetch.ids(wanted, field);
        if (ids == null || ids.isEmpty()) {
            listener.onResponse(ids == null ? null : page);
            return;
        }
        SearchSourceBuilder source = LeanFetch.page(asked(request, plan), field, ids);
        services.client().search(again(request, plan, source), new ActionListener<>() {
            @Override
            public void onResponse(SearchResponse found) {
                SearchHit[] hits = LeanFetch.match(wanted, found.getHits().getHits(), field);
                listener.onResponse(hits == null ? null : Responses.with(page, hits));
            }

            @Override
            public void onFailure(Exception e) {
                listener.onResponse(null);
            }
        });
    }

    /** Searches once more, the whole window in one. */
    void whole(SearchRequest request, SearchPlan plan, ActionListener<SearchResponse> listener) {
        SearchSourceBuilder source = asked(request, plan);
        source.from(0).size(plan.window().fetched()).docValueField(plan.config().itemIdField());
        services.client().search(again(request, plan, source), listener);
    }

    /** Searches once more, for what the client asked for and no more. */
    void own(SearchRequest request, SearchPlan plan, ActionListener<SearchResponse> listener) {
        services.client().search(again(request, plan, asked(request, plan)), listener);
    }

    /**
     * Returns what the client asked for, within the query that processors behind this plugin's have
     * left: one that filters must hide as much from a second search.
     */
    private static SearchSourceBuilder asked(SearchRequest request, SearchPlan plan) {
        SearchSourceBuilder asked = plan.source().shallowCopy();
        SearchSourceBuilder left = request.source();
        return asked.ext(left.ext()).query(left.query()).postFilter(left.postFilter());
    }

    private SearchRequest again(
        SearchRequest request, SearchPlan plan, SearchSourceBuilder source
    ) {
        SearchRequest again = new SearchRequest(request).source(source);
        again.pipeline(SearchPipelineService.NOOP_PIPELINE_ID);
        if (plan.task() != null) {
            again.setParentTask(services.clusterService().localNode().getId(), plan.task().getId());
        }
        return again;
    }
}
