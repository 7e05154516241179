package org.opensearch.personalize;

import java.util.ArrayList;
import java.util.List;

import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.search.SearchResponseSections;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.SearchHit;
import org.opensearch.search.SearchHits;
import org.opensearch.search.aggregations.InternalAggregations;
import org.opensearch.search.internal.InternalSearchResponse;
import org.opensearch.search.profile.SearchProfileShardResults;

/** Copies responses, everything kept but for the hits and one more ext section. */
final class Responses {

    private Responses() {}

    /** Returns the same page with other hits in it, one for one. */
    static SearchHits with(SearchHits page, SearchHit[] hits) {
        return new SearchHits(
            hits,
            page.getTotalHits(),
            page.getMaxScore(),
            page.getSortFields(),
            page.getCollapseField(),
            page.getCollapseValues()
        );
    }

    /** Returns the response with this page, told by this section. */
    static SearchResponse with(SearchResponse response, SearchHits page, PersonalizeAnswer answer) {
        SearchResponseSections sections = response.getInternalResponse();
        List<SearchExtBuilder> exts = new ArrayList<>(sections.getSearchExtBuilders());
        exts.add(answer);
        InternalSearchResponse changed = new InternalSearchResponse(
            page,
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

    /** The sections hand out an absent profile as an empty one. */
    private static SearchProfileShardResults profile(SearchResponseSections sections) {
        var shards = sections.profile();
        return shards.isEmpty() ? null : new SearchProfileShardResults(shards);
    }
}
