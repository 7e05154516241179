package org.opensearch.personalize;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.search.SearchResponseSections;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.SearchHit;
import org.opensearch.search.SearchHits;
import org.opensearch.search.aggregations.InternalAggregations;
import org.opensearch.search.internal.InternalSearchResponse;
import org.opensearch.search.profile.SearchProfileShardResults;

/** Builds the response that a client sees: the engine's, but for the hits and one ext section. */
final class Responses {

    private Responses() {}

    /** Returns the client's page in the engine's order, with the reason. */
    static SearchResponse skipped(SearchResponse response, SearchPlan plan, SkipReason reason) {
        SearchHits hits = plan.window() == null
            ? response.getHits()
            : page(response, plan, new int[0]);
        return with(response, hits, PersonalizeAnswer.skipped(reason, plan.controls().explain()));
    }

    /** Returns the client's page in the sidecar's order. */
    static SearchResponse applied(
        SearchResponse response,
        SearchPlan plan,
        RescoreRequest asked,
        RescoreAnswer answer
    ) {
        int size = Math.min(plan.window().reordered(), response.getHits().getHits().length);
        int[] order = Reorderer.spread(size, asked.positions(), answer.order());
        List<Map<String, Object>> explained = plan.controls().explain()
            ? explain(response.getHits(), plan.window(), order, asked, answer)
            : null;
        return with(
            response,
            page(response, plan, order),
            PersonalizeAnswer.applied(answer.state(), answer.model(), explained)
        );
    }

    private static SearchHits page(SearchResponse response, SearchPlan plan, int[] order) {
        SearchHits page = Reorderer.page(response.getHits(), order, plan.window());
        if (plan.hidesItemField()) {
            for (SearchHit hit : page) {
                hit.removeDocumentField(plan.config().itemIdField());
            }
        }
        return page;
    }

    /** Explains the page's hits that were ranked, in shown order; ranks count from 1. */
    private static List<Map<String, Object>> explain(
        SearchHits hits,
        Window window,
        int[] order,
        RescoreRequest asked,
        RescoreAnswer answer
    ) {
        Map<Integer, Map<String, Object>> byPosition = new LinkedHashMap<>();
        for (int i = 0; i < answer.explanations().size(); i++) {
            byPosition.put(asked.positions()[i], answer.explanations().get(i));
        }
        List<Map<String, Object>> explained = new ArrayList<>();
        int last = Math.min(window.from() + window.size(), order.length);
        for (int place = window.from(); place < last; place++) {
            Map<String, Object> reasons = byPosition.get(order[place]);
            if (reasons != null) {
                SearchHit hit = hits.getAt(order[place]);
                Map<String, Object> entry = new LinkedHashMap<>();
                entry.put("_index", hit.getIndex());
                entry.put("_id", hit.getId());
                entry.putAll(reasons);
                // The sidecar counts the hits it was sent, which may be fewer than the window.
                entry.put("engine_rank", order[place] + 1);
                entry.put("rank", place + 1);
                explained.add(entry);
            }
        }
        return explained;
    }

    /** Copies a response, everything kept: other hits, one more ext section. */
    private static SearchResponse with(
        SearchResponse response,
        SearchHits hits,
        PersonalizeAnswer answer
    ) {
        SearchResponseSections sections = response.getInternalResponse();
        List<SearchExtBuilder> exts = new ArrayList<>(sections.getSearchExtBuilders());
        exts.add(answer);
        InternalSearchResponse changed = new InternalSearchResponse(
            hits,
            (InternalAggregations) sections.aggregations(),
            sections.suggest(),
            profile(sections),
            sections.timedOut(),
            sections.terminatedEarly(),
            sections.getNumReducePhases(),
            exts,
            sections.getProcessorResult()
        );
        return new SearchResponse(
            changed,
            response.getScrollId(),
            response.getTotalShards(),
            response.getSuccessfulShards(),
            response.getSkippedShards(),
            response.getTook().millis(),
            response.getPhaseTook(),
            response.getShardFailures(),
            response.getClusters(),
            response.pointInTimeId()
        );
    }

    /** The sections tell an absent profile and an empty one apart only by what they print. */
    private static SearchProfileShardResults profile(SearchResponseSections sections) {
        var shards = sections.profile();
        return shards.isEmpty() ? null : new SearchProfileShardResults(shards);
    }
}
