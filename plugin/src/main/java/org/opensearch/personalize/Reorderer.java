package org.opensearch.personalize;

import org.opensearch.search.SearchHit;
import org.opensearch.search.SearchHits;

/**
 * Puts a window's hits in a new order and cuts the client's page out of it.
 *
 * <p>Pure. An order is always a permutation of the window, so that no hit is added, dropped or
 * shown twice, whatever page is looked at.
 */
final class Reorderer {

    private Reorderer() {}

    /** Returns the engine's own order of {@code size} hits. */
    static int[] engineOrder(int size) {
        int[] order = new int[size];
        for (int i = 0; i < size; i++) {
            order[i] = i;
        }
        return order;
    }

    /** Returns whether {@code order} holds every position below {@code size} exactly once. */
    static boolean isPermutation(int[] order, int size) {
        if (order.length != size) {
            return false;
        }
        boolean[] seen = new boolean[size];
        for (int position : order) {
            if (position < 0 || position >= size || seen[position]) {
                return false;
            }
            seen[position] = true;
        }
        return true;
    }

    /**
     * Spreads an order of some hits over the whole window; the hits that were not ranked keep their
     * places.
     *
     * @param size hits in the window
     * @param ranked ascending window positions of the ranked hits (R)
     * @param order permutation of 0..R-1, best first
     * @return permutation of 0..size-1: the window position that each place gets
     */
    static int[] spread(int size, int[] ranked, int[] order) {
        int[] spread = engineOrder(size);
        for (int place = 0; place < ranked.length; place++) {
            spread[ranked[place]] = ranked[order[place]];
        }
        return spread;
    }

    /**
     * Returns the client's page.
     *
     * @param order permutation of the first hits; those behind it keep the engine's order
     */
    static SearchHits page(SearchHits hits, int[] order, Window window) {
        SearchHit[] fetched = hits.getHits();
        int first = Math.min(window.from(), fetched.length);
        int last = Math.min(window.from() + window.size(), fetched.length);
        SearchHit[] page = new SearchHit[last - first];
        Object[] groups = hits.getCollapseValues();
        Object[] pageGroups = groups == null ? null : new Object[last - first];
        for (int place = first; place < last; place++) {
            int position = place < order.length ? order[place] : place;
            page[place - first] = fetched[position];
            if (groups != null) {
                pageGroups[place - first] = groups[position];
            }
        }
        return new SearchHits(
            page,
            hits.getTotalHits(),
            hits.getMaxScore(),
            hits.getSortFields(),
            hits.getCollapseField(),
            pageGroups
        );
    }
}
