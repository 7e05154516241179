package org.opensearch.personalize;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Stream;

import org.opensearch.index.query.BoolQueryBuilder;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.index.query.QueryBuilders;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.SearchHit;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.fetch.StoredFieldsContext;

/**
 * Two searches in place of one: ids and scores of the window from doc values alone, then the hits
 * of the page, each written by OpenSearch as if the client had asked.
 *
 * <p>Reading the stored fields of a whole window is the dearest part of widening a search. Pure.
 */
final class LeanFetch {

    /** Below so many hits left out, the second search costs what it saves. */
    private static final int LEAST_SAVED = 10;

    private LeanFetch() {}

    /**
     * Returns whether a search can be split: the item field has doc values, the page leaves enough
     * out, and nothing in the search could make the second one's hits other than the first one's.
     */
    static boolean isPossible(SearchSourceBuilder source, ProcessorConfig config, Window window) {
        int shown = Math.min(window.size(), window.fetched() - window.from());
        return config.itemIdField().equals(ProcessorConfig.ID) == false
            && window.fetched() - shown >= LEAST_SAVED
            && isPlain(source)
            && source.ext().stream().allMatch(LeanFetch::isHarmless)
            && hasSpecialHits(source.query()) == false;
    }

    /** Asks for ids and scores only; {@code source} is a copy that may be changed. */
    static void narrow(SearchSourceBuilder source, String itemIdField) {
        source.fetchSource(false)
            .storedField(StoredFieldsContext._NONE_)
            .docValueField(itemIdField)
            .version(false)
            .seqNoAndPrimaryTerm(false);
    }

    /**
     * Asks for the hits with these items, as the client wants hits.
     *
     * <p>The client's query stays as it is inside a {@code bool} whose filter adds nothing to a
     * score: so scores and matched queries are those of the client's query.
     */
    static SearchSourceBuilder page(SearchSourceBuilder source, String field, List<String> ids) {
        QueryBuilder query =
            source.query() == null ? QueryBuilders.matchAllQuery() : source.query();
        BoolQueryBuilder narrowed =
            QueryBuilders.boolQuery().must(query).filter(QueryBuilders.termsQuery(field, ids));
        SearchSourceBuilder page = new SearchSourceBuilder().query(narrowed)
            // More than the page, where an item stands in several indices: told apart by index.
            .size(2 * ids.size())
            .trackTotalHits(false)
            .fetchSource(source.fetchSource())
            .docValueField(field)
            .version(source.version())
            .seqNoAndPrimaryTerm(source.seqNoAndPrimaryTerm())
            .includeNamedQueriesScores(source.includeNamedQueriesScore())
            .pointInTimeBuilder(source.pointInTimeBuilder());
        if (source.postFilter() != null) {
            page.postFilter(source.postFilter());
        }
        if (source.timeout() != null) {
            page.timeout(source.timeout());
        }
        source.indexBoosts().forEach(boost -> page.indexBoost(boost.getIndex(), boost.getBoost()));
        return page;
    }

    /**
     * Returns the found hits in the order of the wanted ones, with the scores of those.
     *
     * @return null when a wanted hit was not found exactly once: it was changed in between
     */
    static SearchHit[] match(SearchHit[] wanted, SearchHit[] found, String field) {
        Map<String, SearchHit> byItem = new HashMap<>();
        for (SearchHit hit : found) {
            if (byItem.put(key(hit, field), hit) != null) {
                return null;
            }
        }
        SearchHit[] matched = new SearchHit[wanted.length];
        for (int i = 0; i < wanted.length; i++) {
            matched[i] = byItem.remove(key(wanted[i], field));
            if (matched[i] == null) {
                return null;
            }
            matched[i].score(wanted[i].getScore());
            matched[i].removeDocumentField(field);
        }
        return matched;
    }

    /** Returns the item ids of lean hits; null when one has none. */
    static List<String> ids(SearchHit[] hits, String field) {
        List<String> ids = new ArrayList<>();
        for (SearchHit hit : hits) {
            String id = RescoreRequest.itemId(hit, field);
            if (id == null) {
                return null;
            }
            ids.add(id);
        }
        return ids;
    }

    private static String key(SearchHit hit, String field) {
        return hit.getClusterAlias() + '/' + hit.getIndex() + '/'
            + RescoreRequest.itemId(hit, field);
    }

    private static boolean isPlain(SearchSourceBuilder source) {
        boolean saysNothing = Stream.of(
            source.storedFields(),
            source.docValueFields(),
            source.fetchFields(),
            source.scriptFields(),
            source.getDerivedFieldsObject(),
            source.highlighter(),
            source.collapse(),
            source.rescores(),
            source.sorts(),
            source.minScore()
        ).allMatch(Objects::isNull);
        return saysNothing
            && source.terminateAfter() == 0
            && source.profile() == false
            && Boolean.TRUE.equals(source.explain()) == false
            && Boolean.TRUE.equals(source.verbosePipeline()) == false;
    }

    private static boolean isHarmless(SearchExtBuilder ext) {
        return ext instanceof PersonalizeExtBuilder || ext instanceof ForeignExtBuilder;
    }

    private static boolean hasSpecialHits(QueryBuilder query) {
        if (query == null) {
            return false;
        }
        String json = query.toString();
        return json.contains("\"inner_hits\"") || json.contains("\"hybrid\"");
    }
}
