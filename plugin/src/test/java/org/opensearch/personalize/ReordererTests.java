package org.opensearch.personalize;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;

import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import org.apache.lucene.search.TotalHits;
import org.opensearch.search.SearchHit;
import org.opensearch.search.SearchHits;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** What holds for every order, window and page. */
class ReordererTests {

    /** However the pages are cut, together they show every hit once, in one order. */
    @Property
    void pagesNeitherRepeatNorDropAHit(
        @ForAll @IntRange(max = 60) int hits,
        @ForAll @IntRange(min = 1, max = 40) int windowSize,
        @ForAll @IntRange(min = 1, max = 25) int pageSize,
        @ForAll long seed
    ) {
        int[] order = shuffled(Math.min(hits, windowSize), seed);
        SearchHits all = hits(hits);
        List<String> shown = new ArrayList<>();
        for (int from = 0; from < hits; from += pageSize) {
            Window window = new Window(from, pageSize, windowSize, hits);
            for (SearchHit hit : Reorderer.page(all, order, window)) {
                shown.add(hit.getId());
            }
        }
        List<String> expected = new ArrayList<>();
        for (int place = 0; place < hits; place++) {
            expected.add("p" + (place < order.length ? order[place] : place));
        }
        assertEquals(expected, shown);
    }

    @Property
    void onlyPermutationsAreOrders(@ForAll @IntRange(max = 30) int size, @ForAll long seed) {
        int[] order = shuffled(size, seed);
        assertTrue(Reorderer.isPermutation(order, size));
        assertFalse(Reorderer.isPermutation(order, size + 1));
        if (size > 0) {
            int[] repeated = order.clone();
            repeated[0] = order[size - 1];
            assertEquals(size == 1, Reorderer.isPermutation(repeated, size));
            order[0] = -1;
            assertFalse(Reorderer.isPermutation(order, size));
            order[0] = size;
            assertFalse(Reorderer.isPermutation(order, size));
        }
    }

    /** A hit that was not ranked stays where the engine put it; the others change places. */
    @Property
    void hitsThatWereNotRankedKeepTheirPlaces(
        @ForAll @IntRange(max = 40) int size,
        @ForAll long seed
    ) {
        Random random = new Random(seed);
        int[] ranked = positions(size).filter(i -> random.nextBoolean()).toArray();
        int[] order = shuffled(ranked.length, seed);
        int[] spread = Reorderer.spread(size, ranked, order);
        assertTrue(Reorderer.isPermutation(spread, size));
        positions(size).filter(i -> Arrays.binarySearch(ranked, i) < 0)
            .forEach(i -> assertEquals(i, spread[i]));
        int[] shown =
            Arrays.stream(spread).filter(i -> Arrays.binarySearch(ranked, i) >= 0).toArray();
        assertArrayEquals(Arrays.stream(order).map(i -> ranked[i]).toArray(), shown);
    }

    @Property
    void groupsTravelWithTheirHits(
        @ForAll @IntRange(min = 1, max = 30) int size, @ForAll long seed
    ) {
        SearchHits hits = hits(size);
        Object[] groups = positions(size).mapToObj(i -> "g" + i).toArray();
        SearchHits collapsed = new SearchHits(
            hits.getHits(),
            hits.getTotalHits(),
            hits.getMaxScore(),
            null,
            "brand",
            groups
        );
        int[] order = shuffled(size, seed);
        SearchHits page = Reorderer.page(collapsed, order, new Window(0, size, size, size));
        assertEquals("brand", page.getCollapseField());
        for (int place = 0; place < size; place++) {
            assertEquals(
                "g" + page.getAt(place).getId().substring(1), page.getCollapseValues()[place]
            );
        }
    }

    @Property
    void totalAndMaxScoreAreKept(@ForAll @IntRange(max = 20) int size) {
        SearchHits page = Reorderer.page(hits(size), new int[0], new Window(0, 5, 5, size));
        assertEquals(new TotalHits(7, TotalHits.Relation.EQUAL_TO), page.getTotalHits());
        assertEquals(3.5f, page.getMaxScore());
        SearchHits untold = new SearchHits(new SearchHit[0], null, Float.NaN);
        assertEquals(
            null, Reorderer.page(untold, new int[0], new Window(0, 5, 5, 5)).getTotalHits()
        );
    }

    private static IntStream positions(int size) {
        return IntStream.range(0, size);
    }

    private static int[] shuffled(int size, long seed) {
        List<Integer> order = new ArrayList<>(positions(size).boxed().toList());
        Collections.shuffle(order, new Random(seed));
        return order.stream().mapToInt(Integer::intValue).toArray();
    }

    private static SearchHits hits(int size) {
        SearchHit[] hits = positions(size)
            .mapToObj(i -> new SearchHit(i, "p" + i, Map.of(), Map.of()))
            .toArray(SearchHit[]::new);
        return new SearchHits(hits, new TotalHits(7, TotalHits.Relation.EQUAL_TO), 3.5f);
    }
}
