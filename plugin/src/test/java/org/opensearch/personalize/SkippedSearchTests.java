package org.opensearch.personalize;

import java.io.IOException;
import java.util.List;
import java.util.Map;

import org.junit.jupiter.api.Test;
import org.opensearch.OpenSearchStatusException;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.core.tasks.TaskCancelledException;
import org.opensearch.core.tasks.TaskId;
import org.opensearch.tasks.CancellableTask;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** Searches that come back in the engine's order, or as an error, and what they say. */
class SkippedSearchTests extends ProcessorsTestCase {

    @Test
    void itemFieldThatNoHitHasIsToldAndHarmless() throws Exception {
        config = withItemField("sku");
        client.engine = request -> response(found(0, request.source().size(), 500));
        assertSkipped(SkipReason.NO_IDS, new Search(user("{\"user_id\":\"u\"}")));
    }

    @Test
    void searchesThatAreNotToBePersonalisedSayWhy() throws Exception {
        assertSkipped(SkipReason.ANONYMOUS, new Search(List.of()));
        assertSkipped(
            SkipReason.DISABLED, new Search(user("{\"user_id\":\"u\",\"enabled\":false}"))
        );
        Search sorted = new Search(user("{\"user_id\":\"u\"}"));
        sorted.request.source().sort("price");
        assertSkipped(SkipReason.SORT, sorted);
        assertSkipped(SkipReason.BEYOND_WINDOW, new Search(user("{\"user_id\":\"u\"}")).from(100));
        assertTrue(sidecar.requests.isEmpty());
        assertEquals(
            Map.of("anonymous", 1L, "disabled", 1L, "sort", 1L, "beyond_window", 1L),
            services.stats().skippedCounts()
        );
    }

    @Test
    void emptyResultIsNotSent() throws Exception {
        SearchResponse response = new Search(user("{\"user_id\":\"u\"}")).run(0).answer();
        assertTrue(ext(response).contains("\"reason\":\"no_hits\""));
        SearchResponse behind = new Search(user("{\"user_id\":\"u\"}")).from(5).run(5).answer();
        assertTrue(ext(behind).contains("\"reason\":\"no_hits\""));
        assertTrue(sidecar.requests.isEmpty());
    }

    @Test
    void failuresKeepTheEnginesPageAndSayWhy() throws Exception {
        sidecar.behaviour = FakeSidecar.stalling();
        config = withTimeout(30);
        assertSkipped(SkipReason.TIMEOUT, new Search(user("{\"user_id\":\"u\"}")));
        sidecar.behaviour = FakeSidecar.saying(200, "nonsense");
        config = withTimeout(2000);
        assertSkipped(SkipReason.SIDECAR_ERROR, new Search(user("{\"user_id\":\"u\"}")));
        sidecar.behaviour =
            FakeSidecar.saying(200, "{\"applied\":false,\"reason\":\"state_behind\"}");
        assertSkipped(SkipReason.STATE_BEHIND, new Search(user("{\"user_id\":\"u\"}")));
        sidecar.close();
        assertSkipped(SkipReason.SIDECAR_UNAVAILABLE, new Search(user("{\"user_id\":\"u\"}")));
    }

    @Test
    void failuresAreErrorsWhereThePipelineSaysSo() throws Exception {
        sidecar.behaviour = FakeSidecar.saying(500, "");
        config = config.with(OnFailure.FAIL);
        Exception error = new Search(user("{\"user_id\":\"u\"}")).run(5).failure();
        assertEquals(
            503, assertInstanceOf(OpenSearchStatusException.class, error).status().getStatus()
        );
        assertEquals(
            "processor [personalize] with tag [t] could not personalise: sidecar_error "
                + "(sidecar's answer: status is 500)",
            error.getMessage()
        );
        sidecar.behaviour =
            FakeSidecar.saying(200, "{\"applied\":false,\"reason\":\"no_history\"}");
        assertSkipped(SkipReason.NO_HISTORY, new Search(user("{\"user_id\":\"u\"}")));
    }

    /** OpenSearch would show the fetched window, not the page, if the failure were thrown. */
    @Test
    void ignoredFailureStillShowsThePage() throws Exception {
        sidecar.behaviour = FakeSidecar.saying(500, "");
        config = config.with(OnFailure.FAIL);
        Search search = new Search(user("{\"user_id\":\"u\"}"));
        search.ignoreFailure = true;
        assertSkipped(SkipReason.SIDECAR_ERROR, search);
    }

    /** A pipeline that ignored what else fails would show the window in the page's place. */
    @Test
    void failureIsNeverLeftToThePipelineToIgnore() {
        assertFalse(
            new PersonalizeResponseProcessor("t", "d", true, config, services).isIgnoreFailure()
        );
    }

    @Test
    void shardsThatFailOnlyForTheWindowLeaveTheClientsOwnAnswer() throws Exception {
        client.engine = request -> response(found(0, 3, 500));
        Search search = new Search(user("{\"user_id\":\"u\"}"));
        search.engine = size -> partial(found(0, size, 400), new IOException("x"));
        assertSkipped(SkipReason.UPSTREAM_ERROR, search.size(3));
        assertEquals(3, client.searches.getFirst().source().size());
        assertTrue(sidecar.requests.isEmpty());
    }

    @Test
    void shardsThatFailInAnyCaseDoNotKeepTheOthersFromBeingReordered() throws Exception {
        client.engine = request -> partial(found(0, 3, 400), new IOException("x"));
        Search search = new Search(user("{\"user_id\":\"u\"}"));
        search.engine = size -> partial(found(0, size, 400), new IOException("x"));
        assertEquals(List.of("p99", "p98", "p97"), ids(search.size(3).run(400).answer()));
    }

    @Test
    void windowThatTheNodeDoesNotAllowIsTheClientsError() throws Exception {
        Search search = new Search(user("{\"user_id\":\"u\",\"window_size\":1001}"));
        search.hasRequestProcessor = false;
        assertInstanceOf(IllegalArgumentException.class, search.run(5).failure());
    }

    @Test
    void cancelledSearchEndsInCancellation() throws Exception {
        sidecar.behaviour = FakeSidecar.stalling();
        config = withTimeout(20_000);
        CancellableTask task =
            new CancellableTask(1, "t", "search", "", TaskId.EMPTY_TASK_ID, Map.of()) {
                @Override
                public boolean shouldCancelChildrenOnCancellation() {
                    return true;
                }
            };
        Heard<SearchResponse> heard;
        try (var before = threadPool.getThreadContext().stashContext()) {
            assertTrue(before != null);
            threadPool.getThreadContext()
                .putTransient("personalize.search", new RunningSearch(task, false));
            heard = new Search(user("{\"user_id\":\"u\"}")).run(5);
        }
        task.cancel("test");
        assertInstanceOf(TaskCancelledException.class, heard.failure());
        assertEquals(1, services.stats().cancelledCount());
    }
}
