package org.opensearch.personalize;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

import org.junit.jupiter.api.Test;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.search.ShardSearchFailure;
import org.opensearch.core.action.ActionListener;
import org.opensearch.search.SearchHit;
import org.opensearch.search.SearchHits;
import org.opensearch.search.aggregations.InternalAggregations;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.internal.InternalSearchResponse;
import org.opensearch.search.pipeline.ProcessorExecutionDetail;
import org.opensearch.search.profile.ProfileShardResult;
import org.opensearch.search.profile.SearchProfileShardResults;
import org.opensearch.search.suggest.Suggest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** Searches that come back in the sidecar's order. */
class ReorderedSearchTests extends ProcessorsTestCase {

    @Test
    void pageIsCutOutOfTheReorderedWindow() throws Exception {
        Search search = new Search(user("{\"user_id\":\"u\",\"window_size\":20}")).from(2).size(3);
        SearchResponse response = search.run(50).answer();
        assertEquals(List.of("p17", "p16", "p15"), ids(response)); // the window reversed: 19, 18, …
        assertEquals(20, search.fetched);
        Map<String, Object> asked = sidecar.requests.getFirst();
        assertEquals("u", asked.get("user_id"));
        assertEquals("oat milk", asked.get("query"));
        assertEquals(20, ((List<?>) asked.get("hits")).size());
        assertEquals(
            "{\"personalize\":{\"applied\":true,\"reason\":null,\"state\":17,\"model\":\"m1\"}}",
            ext(response)
        );
        assertEquals(1, services.stats().appliedCount());
    }

    @Test
    void callersRequestIsNotTouched() throws Exception {
        Search search = new Search(user("{\"user_id\":\"u\"}"));
        SearchSourceBuilder source = search.request.source();
        String before = source.toString();
        search.run(30).answer();
        assertEquals(before, source.toString());
        assertTrue(search.request.source().ext().isEmpty());
    }

    @Test
    void callersListOfFieldsIsNotTouchedEither() throws Exception {
        config = withItemField("sku");
        Search search = new Search(user("{\"user_id\":\"u\"}"));
        SearchSourceBuilder source = search.request.source();
        source.docValueField("price");
        search.run(30).answer();
        assertEquals(1, source.docValueFields().size());
        assertEquals(2, search.request.source().docValueFields().size());
    }

    @Test
    void fieldThatTheClientAskedForIsShown() throws Exception {
        config = withItemField("sku");
        for (String pattern : List.of("sku", "s*", "*")) {
            Search search = new Search(user("{\"user_id\":\"u\"}"));
            search.request.source().fetchField(pattern);
            search.engine = size -> response(
                new SearchHits(new SearchHit[]{ hit(0, "s0"), hit(1, "s1") }, null, Float.NaN)
            );
            SearchResponse response = search.run(2).answer();
            assertEquals(List.of("p1", "p0"), ids(response));
            assertEquals("s1", response.getHits().getAt(0).field("sku").getValue());
            assertNull(search.request.source().docValueFields());
        }
    }

    @Test
    void tailBehindTheWindowKeepsTheEnginesOrder() throws Exception {
        Search search = new Search(user("{\"user_id\":\"u\",\"window_size\":4}")).from(2).size(4);
        assertEquals(List.of("p1", "p0", "p4", "p5"), ids(search.run(50).answer()));
        assertEquals(6, search.fetched);
    }

    @Test
    void explanationNamesTheShownHits() throws Exception {
        Search search = new Search(user("{\"user_id\":\"u\",\"explain\":true,\"window_size\":3}"));
        String ext = ext(search.from(1).size(1).run(9).answer());
        assertEquals(
            "{\"personalize\":{\"applied\":true,\"reason\":null,\"state\":17,\"model\":\"m1\","
                + "\"hits\":[{\"_index\":null,\"_id\":\"p1\",\"score\":1.5,"
                + "\"parts\":{\"engine\":1.5},\"engine_rank\":2,\"rank\":2}]}}",
            ext
        );
    }

    @Test
    void fewerHitsThanTheWindowAreReordered() throws Exception {
        assertEquals(
            List.of("p1", "p0"), ids(new Search(user("{\"user_id\":\"u\"}")).run(2).answer())
        );
    }

    @Test
    void everythingElseInTheResponseIsKept() throws Exception {
        Search search = new Search(user("{\"user_id\":\"u\",\"window_size\":5}")).size(2);
        SearchResponse before = fullResponse(hits(5));
        search.engine = size -> before;
        client.engine = request -> before; // as many shards fail at the client's own
        SearchResponse after = search.run(5).answer();
        assertEquals(List.of("p4", "p3"), ids(after));
        assertSame(before.getAggregations(), after.getAggregations());
        assertSame(before.getSuggest(), after.getSuggest());
        assertEquals(before.getProfileResults().keySet(), after.getProfileResults().keySet());
        assertEquals(before.isTimedOut(), after.isTimedOut());
        assertEquals(before.isTerminatedEarly(), after.isTerminatedEarly());
        assertEquals(before.getNumReducePhases(), after.getNumReducePhases());
        assertEquals(before.getTotalShards(), after.getTotalShards());
        assertEquals(before.getSuccessfulShards(), after.getSuccessfulShards());
        assertEquals(before.getSkippedShards(), after.getSkippedShards());
        assertEquals(before.getTook(), after.getTook());
        assertEquals(before.getPhaseTook(), after.getPhaseTook());
        assertSame(before.getShardFailures(), after.getShardFailures());
        assertSame(before.getClusters(), after.getClusters());
        assertEquals("pit", after.pointInTimeId());
        assertEquals(before.getHits().getTotalHits(), after.getHits().getTotalHits());
        assertEquals(before.getHits().getMaxScore(), after.getHits().getMaxScore());
        var sections = after.getInternalResponse();
        assertEquals("other", sections.getSearchExtBuilders().getFirst().getWriteableName());
        assertEquals(1, sections.getProcessorResult().size());
    }

    @Test
    void hitsWithoutIdKeepTheirPlaces() throws Exception {
        config = withItemField("sku");
        Search search = new Search(user("{\"user_id\":\"u\",\"explain\":true}")).size(95);
        search.engine = size -> response(
            new SearchHits(
                IntStream.range(0, 4).mapToObj(i -> hit(i, i == 1 ? null : "s" + i))
                    .toArray(SearchHit[]::new),
                null,
                Float.NaN
            )
        );
        SearchResponse response = search.run(4).answer();
        assertEquals(List.of("p3", "p1", "p2", "p0"), ids(response));
        for (SearchHit hit : response.getHits()) {
            assertNull(hit.field("sku")); // added for the sidecar, not asked for by the client
        }
        assertTrue(ext(response).contains("\"_id\":\"p2\",\"score\":1.5"), ext(response));
        assertTrue(ext(response).contains("\"engine_rank\":3,\"rank\":3"), ext(response));
    }

    @Test
    void scoresThatAreNoNumbersAreSentAsNull() throws Exception {
        Search search = new Search(user("{\"user_id\":\"u\"}"));
        search.engine = size -> {
            SearchHits hits = hits(2);
            hits.getAt(0).score(Float.NaN);
            return response(hits);
        };
        search.run(2).answer();
        List<?> sent = (List<?>) sidecar.requests.getFirst().get("hits");
        assertNull(((Map<?, ?>) sent.get(0)).get("score"));
        assertEquals(1.5, ((Map<?, ?>) sent.get(1)).get("score"));
    }

    @Test
    void responseProcessorAloneReordersThePage() throws Exception {
        Search search = new Search(user("{\"user_id\":\"u\",\"window_size\":3}")).size(5);
        search.hasRequestProcessor = false;
        assertEquals(List.of("p2", "p1", "p0", "p3", "p4"), ids(search.run(5).answer()));
    }

    @Test
    void secondProcessorOfOneSearchStandsBack() throws Exception {
        Search search = new Search(user("{\"user_id\":\"u\"}")).size(5);
        SearchResponse first = search.run(5).answer();
        Heard<SearchResponse> heard = new Heard<>();
        search.responseProcessor()
            .processResponseAsync(search.request, first, search.context, heard);
        assertSame(first, heard.answer());
        assertEquals(1, sidecar.requests.size());
    }

    @Test
    void searchGoesOnInItsOwnContext() throws Exception {
        String[] header = new String[1];
        Heard<SearchResponse> heard = new Heard<>();
        try (var before = threadPool.getThreadContext().stashContext()) {
            assertTrue(before != null);
            threadPool.getThreadContext().putHeader("who", "me");
            Search search = new Search(user("{\"user_id\":\"u\"}"));
            search.heard = new ActionListener<>() {
                @Override
                public void onResponse(SearchResponse response) {
                    header[0] = threadPool.getThreadContext().getHeader("who");
                    heard.onResponse(response);
                }

                @Override
                public void onFailure(Exception e) {
                    heard.onFailure(e);
                }
            };
            search.run(5);
        }
        heard.answer();
        assertEquals("me", header[0]);
    }

    private static SearchResponse fullResponse(SearchHits hits) {
        InternalSearchResponse sections = new InternalSearchResponse(
            hits,
            InternalAggregations.EMPTY,
            new Suggest(new ArrayList<>()),
            new SearchProfileShardResults(
                Map.of("shard", new ProfileShardResult(List.of(), null, null, null))
            ),
            true,
            true,
            3,
            List.of(Fixtures.foreign("other", "{\"a\":1}")),
            List.of(new ProcessorExecutionDetail("other"))
        );
        return new SearchResponse(
            sections,
            null,
            7,
            5,
            1,
            42,
            new SearchResponse.PhaseTook(Map.of("query", 3L)),
            new ShardSearchFailure[]{ new ShardSearchFailure(new IOException("x")) },
            new SearchResponse.Clusters(3, 2, 1),
            "pit"
        );
    }
}
