package org.opensearch.personalize;

/**
 * The hits of one search that are reordered, and the page that the client asked for.
 *
 * @param from the client's page: its first position, 0 or more
 * @param size the client's page: its number of hits, 1 or more
 * @param reordered K: the first K fetched hits are reordered, those behind keep the engine's order
 * @param fetched number of hits to fetch from position 0: the window and the page, whichever is
 *     longer
 */
record Window(int from, int size, int reordered, int fetched) {

    /** Returns the window of a page that starts at 0 and is reordered as far as it goes. */
    static Window ofPage(int hits, int windowSize) {
        return new Window(0, hits, Math.min(hits, windowSize), hits);
    }
}
