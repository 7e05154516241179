package org.opensearch.personalize;

import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import java.util.stream.Stream;

import org.apache.lucene.search.TotalHits;
import org.apache.lucene.search.join.ScoreMode;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.opensearch.OpenSearchStatusException;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.common.document.DocumentField;
import org.opensearch.core.common.bytes.BytesArray;
import org.opensearch.core.rest.RestStatus;
import org.opensearch.index.query.InnerHitBuilder;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.index.query.QueryBuilders;
import org.opensearch.search.SearchHit;
import org.opensearch.search.SearchHits;
import org.opensearch.search.aggregations.AggregationBuilders;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.collapse.CollapseBuilder;
import org.opensearch.search.fetch.subphase.highlight.HighlightBuilder;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** Searches that are split: ids and scores of the window first, the page's hits after. */
class LeanSearchTests extends ProcessorsTestCase {

    private static final QueryBuilder IN_STOCK = QueryBuilders.termQuery("stock", true);

    private Search search;

    @BeforeEach
    void useItemField() {
        config = withItemField("sku");
        search = new Search(user("{\"user_id\":\"u\",\"window_size\":20,\"explain\":true}"));
        search.engine = size -> response(lean(size));
        client.engine = request -> response(whole(idsAskedFor(request)));
    }

    @Test
    void pageIsFetchedByItsItems() throws Exception {
        SearchResponse response = search.from(2).size(3).run(20).answer();
        assertEquals(List.of("p17", "p16", "p15"), ids(response));
        assertEquals("{\"n\":17}", response.getHits().getAt(0).getSourceAsString());
        assertEquals(17.5f, response.getHits().getAt(0).getScore()); // the first search's
        assertNull(response.getHits().getAt(0).field("sku"));
        assertTrue(ext(response).contains("\"_id\":\"p17\""), ext(response));
        assertEquals(List.of("s17", "s16", "s15"), idsAskedFor(client.searches.getFirst()));
        assertEquals("_none", client.searches.getFirst().pipeline());
    }

    @Test
    void firstSearchReadsNoStoredFields() throws Exception {
        SearchSourceBuilder asked = search.request.source();
        search.size(3).run(20).answer();
        SearchSourceBuilder first = search.request.source();
        assertFalse(first.fetchSource().fetchSource());
        assertFalse(first.storedFields().fetchFields());
        assertEquals("sku", first.docValueFields().getFirst().field);
        assertNull(asked.docValueFields());
        assertNull(asked.fetchSource());
    }

    @Test
    void skippedSearchShowsWholeHitsToo() throws Exception {
        sidecar.behaviour = FakeSidecar.saying(200, "{\"applied\":false,\"reason\":\"gated\"}");
        SearchResponse response = search.size(2).run(20).answer();
        assertEquals(List.of("p0", "p1"), ids(response));
        assertTrue(response.getHits().getAt(0).hasSource());
    }

    @Test
    void hitThatVanishedInBetweenLeadsToOneWholeSearch() throws Exception {
        client.engine = request -> isPageSearch(request)
            ? response(whole(List.of("s19")))
            : response(whole(skus(request.source().size())));
        SearchResponse response = search.size(2).run(20).answer();
        assertEquals(List.of("p19", "p18"), ids(response));
        assertTrue(response.getHits().getAt(1).hasSource());
        assertNull(response.getHits().getAt(1).field("sku"));
        assertEquals(2, client.searches.size());
        assertEquals(20, client.searches.get(1).source().size());
    }

    /** As filter_query does, behind this plugin's processor. */
    @Test
    void filterOfALaterProcessorHoldsForTheFurtherSearches() throws Exception {
        search.engine = size -> {
            SearchSourceBuilder left = search.request.source();
            left.query(QueryBuilders.boolQuery().must(left.query()).filter(IN_STOCK));
            left.postFilter(IN_STOCK);
            return response(lean(size));
        };
        client.engine = request -> isPageSearch(request)
            ? response(whole(List.of()))
            : response(whole(skus(request.source().size())));
        search.size(2).run(20).answer();
        assertEquals(2, client.searches.size());
        for (SearchRequest further : client.searches) {
            assertTrue(further.source().query().toString().contains("\"stock\""));
            assertEquals(IN_STOCK, further.source().postFilter());
            assertNull(further.source().storedFields());
        }
    }

    @Test
    void failedPageSearchLeadsToOneWholeSearch() throws Exception {
        client.engine = request -> {
            if (isPageSearch(request)) {
                throw new IllegalStateException("shard gone");
            }
            return response(whole(skus(request.source().size())));
        };
        assertEquals(List.of("p19", "p18"), ids(search.size(2).run(20).answer()));
    }

    @Test
    void shardThatIsNotThereCausesNoMoreSearches() throws Exception {
        Exception gone = new OpenSearchStatusException("gone", RestStatus.SERVICE_UNAVAILABLE);
        search.engine = size -> partial(lean(size), gone);
        client.engine = request -> partial(whole(idsAskedFor(request)), gone);
        assertEquals(List.of("p19", "p18"), ids(search.size(2).run(20).answer()));
        assertEquals(1, client.searches.size());
    }

    @Test
    void engineThatFailsAltogetherIsAnError() throws Exception {
        client.engine = request -> {
            throw new IllegalStateException("gone");
        };
        assertInstanceOf(IllegalStateException.class, search.size(2).run(20).failure());
    }

    @Test
    void emptyResultNeedsNoSecondSearch() throws Exception {
        search.engine = size -> response(lean(0));
        assertEquals(List.of(), ids(search.run(0).answer()));
        assertTrue(client.searches.isEmpty());
    }

    @Test
    void pageSearchKeepsWhatShapesAHit() {
        SearchSourceBuilder source = new SearchSourceBuilder();
        source.query(QueryBuilders.matchQuery("title", "milk")).fetchSource("brand", null);
        source.version(true).seqNoAndPrimaryTerm(true).indexBoost("shop", 2f).size(1);
        source.aggregation(AggregationBuilders.terms("b").field("brand"));
        source.postFilter(QueryBuilders.termQuery("brand", "x"));
        SearchSourceBuilder page = LeanFetch.page(source, "sku", List.of("a", "b"));
        assertSame(source.fetchSource(), page.fetchSource());
        assertSame(source.postFilter(), page.postFilter());
        assertTrue(page.version() && page.seqNoAndPrimaryTerm());
        assertEquals(source.indexBoosts(), page.indexBoosts());
        assertEquals(4, page.size());
        assertNull(page.aggregations());
    }

    @Test
    void searchesWhoseHitsTheSecondCouldChangeAreNotSplit() {
        assertTrue(isSplit(source -> {}));
        assertTrue(
            isSplit(source -> source.aggregation(AggregationBuilders.terms("b").field("b")))
        );
        Stream<Consumer<SearchSourceBuilder>> others = Stream.of(
            source -> source.collapse(new CollapseBuilder("brand")),
            source -> source.highlighter(new HighlightBuilder().field("title")),
            source -> source.explain(true),
            source -> source.profile(true),
            source -> source.fetchField("title"),
            source -> source.docValueField("price"),
            source -> source.storedField("_none_"),
            source -> source.terminateAfter(5),
            source -> source.sort("_score"),
            source -> source.query(
                QueryBuilders.nestedQuery(
                    "n",
                    QueryBuilders.matchAllQuery(),
                    ScoreMode.Avg
                ).innerHit(new InnerHitBuilder())
            )
        );
        others.forEach(other -> assertFalse(isSplit(other)));
    }

    @Test
    void littleSavedIsNothingSaved() {
        SearchSourceBuilder source = new SearchSourceBuilder();
        assertTrue(LeanFetch.isPossible(source, config, new Window(0, 10, 20, 20)));
        assertFalse(LeanFetch.isPossible(source, config, new Window(0, 11, 20, 20)));
        ProcessorConfig byId = withItemField(ProcessorConfig.ID);
        assertFalse(LeanFetch.isPossible(source, byId, new Window(0, 10, 20, 20)));
    }

    @Test
    void hitsAreMatchedByIndexAndItem() {
        SearchHit[] wanted = { sku(1), sku(0) };
        assertEquals(
            "p1", LeanFetch.match(wanted, whole(List.of("s0", "s1")).getHits(), "sku")[0].getId()
        );
        assertNull(LeanFetch.match(wanted, whole(List.of("s0")).getHits(), "sku"));
        assertNull(LeanFetch.match(wanted, whole(List.of("s0", "s1", "s1")).getHits(), "sku"));
    }

    private boolean isSplit(Consumer<SearchSourceBuilder> change) {
        SearchSourceBuilder source = new SearchSourceBuilder();
        source.query(QueryBuilders.matchQuery("title", "milk"));
        change.accept(source);
        return LeanFetch.isPossible(source, config, new Window(0, 10, 100, 100));
    }

    private static boolean isPageSearch(SearchRequest request) {
        return request.source().query().toString().contains("\"terms\"");
    }

    private static List<String> idsAskedFor(SearchRequest request) {
        String query = request.source().query().toString().replaceAll("\\s", "");
        String list = query.replaceAll(".*\"sku\":\\[([^]]*)].*", "$1").replace("\"", "");
        return Arrays.asList(list.split(","));
    }

    private static List<String> skus(int count) {
        return IntStream.range(0, count).mapToObj(i -> "s" + i).toList();
    }

    private static SearchHit sku(int position) {
        return hit(position, "s" + position);
    }

    private static SearchHits lean(int count) {
        SearchHit[] hits = IntStream.range(0, count).mapToObj(i -> {
            Map<String, DocumentField> fields =
                new HashMap<>(Map.of("sku", new DocumentField("sku", List.of("s" + i))));
            SearchHit hit = new SearchHit(i, null, fields, Map.of());
            hit.score(i + 0.5f);
            return hit;
        }).toArray(SearchHit[]::new);
        return new SearchHits(hits, new TotalHits(count, TotalHits.Relation.EQUAL_TO), 9f);
    }

    /** Whole hits of these items, in another order, with scores that are not to be shown. */
    private static SearchHits whole(List<String> skus) {
        SearchHit[] hits = skus.stream().map(sku -> {
            int position = Integer.parseInt(sku.substring(1));
            SearchHit hit = sku(position);
            hit.score(position + 0.5f);
            hit.sourceRef(new BytesArray("{\"n\":" + position + "}"));
            return hit;
        }).toArray(SearchHit[]::new);
        return new SearchHits(hits, null, Float.NaN);
    }
}
