package org.opensearch.personalize;

import java.util.List;
import java.util.Set;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.rescore.RescorerBuilder;
import org.opensearch.search.sort.FieldSortBuilder;
import org.opensearch.search.sort.ScoreSortBuilder;
import org.opensearch.search.sort.ShardDocSortBuilder;
import org.opensearch.search.sort.SortBuilder;
import org.opensearch.search.sort.SortOrder;

/**
 * Which searches can be reordered, and in what window: the same rules as the sidecar's proxy.
 *
 * <p>A page may repeat or drop no hit, so a window is fetched from 0 and cut after reordering, and
 * whatever walks through the results by another way (scroll, search_after, slice) is left alone.
 */
final class WindowRules {

    private static final int DEFAULT_SIZE = 10; // SearchService.DEFAULT_SIZE
    private static final Set<String> IDS = Set.of("_id", ShardDocSortBuilder.NAME);

    private WindowRules() {}

    /**
     * Returns the window of a search.
     *
     * <p>Where the sort ends in a key that tells hits apart, the client may go on by {@code
     * search_after} from the page's last hit: it stays the last, and the window ends before it.
     *
     * @param windowSize hits to reorder, as the request or the operator wants it
     * @param itemIdField field that holds each product's id
     * @param maxResultWindow what the searched indices allow {@code from + size} to be
     * @throws SkipException with the reason why the search keeps the engine's order
     */
    static Window window(
        SearchRequest request,
        int windowSize,
        String itemIdField,
        int maxResultWindow
    ) throws SkipException {
        SearchSourceBuilder source = request.source();
        int from = Math.max(source.from(), 0);
        int size = source.size() < 0 ? DEFAULT_SIZE : source.size();
        refuse(request.scroll() != null, SkipReason.SCROLL);
        refuse(source.searchAfter() != null, SkipReason.SEARCH_AFTER);
        refuse(source.slice() != null, SkipReason.SLICE);
        refuse(isByScore(source.sorts()) == false, SkipReason.SORT);
        refuse(size == 0, SkipReason.SIZE_ZERO);
        int reordered = Math.min(windowSize, rescoredHits(source.rescores()));
        reordered = Math.min(reordered, maxResultWindow);
        if (endsInId(source.sorts(), itemIdField)) {
            reordered = Math.min(reordered, size - 1);
        }
        refuse(from >= reordered, SkipReason.BEYOND_WINDOW);
        // Past max_result_window the engine has its own error to give: nothing is changed.
        refuse((long) from + size > maxResultWindow, SkipReason.BEYOND_WINDOW);
        return new Window(from, size, reordered, Math.max(reordered, from + size));
    }

    private static void refuse(boolean condition, SkipReason reason) throws SkipException {
        if (condition) {
            throw new SkipException(reason, reason.word());
        }
    }

    /** Returns whether the score leads; keys behind it settle ties only. */
    private static boolean isByScore(List<SortBuilder<?>> sorts) {
        return sorts == null
            || sorts.isEmpty()
            || sorts.getFirst() instanceof ScoreSortBuilder first
                && first.order() == SortOrder.DESC;
    }

    /** Returns whether no two hits have equal sort values. */
    private static boolean endsInId(List<SortBuilder<?>> sorts, String itemIdField) {
        if (sorts == null || sorts.isEmpty()) {
            return false;
        }
        return switch (sorts.getLast()) {
            case ShardDocSortBuilder shard -> true;
            case FieldSortBuilder field -> field.getFieldName().equals(itemIdField)
                || IDS.contains(field.getFieldName());
            default -> false;
        };
    }

    /** Returns how many hits the client's own rescorers reached: behind them scores would mix. */
    @SuppressWarnings("rawtypes") // the builder's own signature
    private static int rescoredHits(List<RescorerBuilder> rescorers) {
        int hits = Integer.MAX_VALUE;
        if (rescorers == null) {
            return hits;
        }
        for (RescorerBuilder<?> rescorer : rescorers) {
            Integer window = rescorer.windowSize();
            hits = Math.min(hits, window == null ? RescorerBuilder.DEFAULT_WINDOW_SIZE : window);
        }
        return hits;
    }
}
