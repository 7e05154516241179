package org.opensearch.personalize;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.opensearch.search.SearchHit;
import org.opensearch.search.SearchHits;

/**
 * What came of asking: an order for the window, or a reason to keep the engine's.
 *
 * @param reason null when there is an order
 * @param order permutation of the window's positions; empty: the engine's order
 */
record Outcome(SkipReason reason, int[] order, RescoreRequest asked, RescoreAnswer answer) {

    static Outcome skipped(SkipReason reason) {
        return new Outcome(reason, new int[0], null, null);
    }

    /** An order for a window of {@code size} hits, of which some may not have been ranked. */
    static Outcome applied(int size, RescoreRequest asked, RescoreAnswer answer) {
        int[] order = Reorderer.spread(size, asked.positions(), answer.order());
        return new Outcome(null, order, asked, answer);
    }

    /**
     * Returns what the response tells of it.
     *
     * @param page the hits that are shown, the first of them at place {@code from}
     */
    PersonalizeAnswer tell(SearchHits page, int from, boolean explain) {
        if (reason != null) {
            return PersonalizeAnswer.skipped(reason, explain);
        }
        List<Map<String, Object>> hits = explain ? explain(page, from) : null;
        return PersonalizeAnswer.applied(answer.state(), answer.model(), hits);
    }

    /** Explains the page's hits that were ranked, in shown order; ranks count from 1. */
    private List<Map<String, Object>> explain(SearchHits page, int from) {
        Map<Integer, Integer> ranked = new HashMap<>(); // window position → position as sent
        for (int i = 0; i < answer.explanations().size(); i++) {
            ranked.put(asked.positions()[i], i);
        }
        List<Map<String, Object>> explained = new ArrayList<>();
        int last = Math.min(from + page.getHits().length, order.length);
        for (int place = from; place < last; place++) {
            Integer sent = ranked.get(order[place]);
            if (sent != null) {
                SearchHit hit = page.getAt(place - from);
                String id = hit.getId();
                Map<String, Object> entry = new LinkedHashMap<>();
                entry.put("_index", hit.getIndex());
                entry.put("_id", id == null ? asked.ids().get(sent) : id);
                entry.putAll(answer.explanations().get(sent));
                // The sidecar counts the hits it was sent, which may be fewer than the window.
                entry.put("engine_rank", order[place] + 1);
                entry.put("rank", place + 1);
                explained.add(entry);
            }
        }
        return explained;
    }
}
