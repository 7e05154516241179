package org.opensearch.personalize;

import java.util.List;

import org.junit.jupiter.api.Test;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.index.query.QueryBuilders;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.collapse.CollapseBuilder;
import org.opensearch.search.rescore.QueryRescorerBuilder;
import org.opensearch.search.slice.SliceBuilder;
import org.opensearch.search.sort.ScoreSortBuilder;
import org.opensearch.search.sort.SortOrder;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

/** Which searches are reordered, in what window, each bound crossed. */
class WindowRulesTests {

    private static final int LIMIT = 10_000;

    private final SearchSourceBuilder source = new SearchSourceBuilder();
    private final SearchRequest request = new SearchRequest().source(source);

    @Test
    void pageWithinTheWindowFetchesTheWindow() throws SkipException {
        source.from(20).size(10);
        assertEquals(new Window(20, 10, 100, 100), window(100));
    }

    @Test
    void pageThatSaysNothingIsTheEnginesDefault() throws SkipException {
        assertEquals(new Window(0, 10, 100, 100), window(100));
    }

    @Test
    void pageAcrossTheEdgeFetchesItsTailToo() throws SkipException {
        source.from(95).size(10);
        assertEquals(new Window(95, 10, 100, 105), window(100));
    }

    @Test
    void pageBehindTheWindowIsLeftAlone() {
        source.from(100).size(10);
        assertRefused(SkipReason.BEYOND_WINDOW, 100);
        source.from(99).size(10);
        assertEquals(100, assertWindow(100).reordered());
    }

    @Test
    void windowIsNoLargerThanTheIndexAllows() {
        source.size(10);
        assertEquals(new Window(0, 10, 50, 50), assertWindow(100, 50));
        source.from(45).size(10);
        assertRefused(SkipReason.BEYOND_WINDOW, 100, 50);
    }

    @Test
    void windowIsNoLargerThanTheClientsRescore() {
        source.addRescorer(new QueryRescorerBuilder(QueryBuilders.matchAllQuery()).windowSize(30));
        assertEquals(new Window(0, 10, 30, 30), assertWindow(100));
        source.addRescorer(new QueryRescorerBuilder(QueryBuilders.matchAllQuery()));
        assertEquals(10, assertWindow(100).reordered());
        source.from(10);
        assertRefused(SkipReason.BEYOND_WINDOW, 100);
    }

    @Test
    void scoreMayBeSortedByWithOthersBehindIt() {
        source.sort(new ScoreSortBuilder()).sort("price");
        assertEquals(100, assertWindow(100).reordered());
    }

    @Test
    void lastHitOfPageStaysLastWhereSearchAfterMayGoOnFromIt() {
        source.sort(new ScoreSortBuilder());
        for (String id : List.of("_id", "item_id", "_shard_doc")) {
            source.sorts().clear();
            source.size(10).sort(new ScoreSortBuilder()).sort(id);
            assertEquals(new Window(0, 10, 9, 10), assertWindow(100), id);
            assertEquals(5, assertWindow(5).reordered(), id);
        }
        source.sort("price");
        assertEquals(100, assertWindow(100).reordered());
    }

    @Test
    void onlyHitOfPageIsRefusedWhereSearchAfterMayGoOnFromIt() {
        source.size(1).sort(new ScoreSortBuilder()).sort("item_id");
        assertRefused(SkipReason.BEYOND_WINDOW, 100);
    }

    @Test
    void collapsedSearchIsReordered() {
        source.collapse(new CollapseBuilder("brand"));
        assertEquals(100, assertWindow(100).reordered());
    }

    @Test
    void otherSortsAreRefused() {
        source.sort("price");
        assertRefused(SkipReason.SORT, 100);
    }

    @Test
    void worstFirstIsRefused() {
        source.sort(new ScoreSortBuilder().order(SortOrder.ASC));
        assertRefused(SkipReason.SORT, 100);
    }

    @Test
    void countOnlyIsRefused() {
        source.size(0);
        assertRefused(SkipReason.SIZE_ZERO, 100);
    }

    @Test
    void walksThroughTheResultsAreRefused() {
        source.searchAfter(new Object[]{ 1.0f });
        assertRefused(SkipReason.SEARCH_AFTER, 100);
        source.slice(new SliceBuilder(0, 2));
        assertRefused(SkipReason.SEARCH_AFTER, 100);
        request.scroll("1m");
        assertRefused(SkipReason.SCROLL, 100);
    }

    @Test
    void sliceAloneIsRefused() {
        source.slice(new SliceBuilder(0, 2));
        assertRefused(SkipReason.SLICE, 100);
    }

    private Window window(int windowSize) throws SkipException {
        return WindowRules.window(request, windowSize, "item_id", LIMIT);
    }

    private Window assertWindow(int windowSize) {
        return assertWindow(windowSize, LIMIT);
    }

    private Window assertWindow(int windowSize, int limit) {
        try {
            return WindowRules.window(request, windowSize, "item_id", limit);
        } catch (SkipException e) {
            throw new AssertionError("refused: " + e.reason(), e);
        }
    }

    private void assertRefused(SkipReason reason, int windowSize) {
        assertRefused(reason, windowSize, LIMIT);
    }

    private void assertRefused(SkipReason reason, int windowSize, int limit) {
        SkipException skip = assertThrows(
            SkipException.class,
            () -> WindowRules.window(request, windowSize, "item_id", limit)
        );
        assertEquals(reason, skip.reason());
    }
}
