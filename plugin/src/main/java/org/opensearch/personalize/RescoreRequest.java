package org.opensearch.personalize;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

import org.opensearch.common.xcontent.XContentFactory;
import org.opensearch.core.common.bytes.BytesReference;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.search.SearchHit;
import org.opensearch.search.SearchHits;

/**
 * What the sidecar is asked: who searches for what, and the window's ids and scores.
 *
 * @param positions ascending window positions of the hits that have an item id (R)
 * @param ids their item ids (R)
 * @param scores their engine scores (R); NaN where a hit has none
 */
record RescoreRequest(Controls controls, String query, int[] positions, List<String> ids,
    float[] scores) {

    /**
     * Gathers a window.
     *
     * @throws SkipException when the page has no hit, or no hit an item id
     */
    static RescoreRequest of(SearchPlan plan, SearchHits hits) throws SkipException {
        if (hits.getHits().length <= plan.window().from()) {
            throw new SkipException(SkipReason.NO_HITS, "the page is empty");
        }
        int size = Math.min(plan.window().reordered(), hits.getHits().length);
        int[] positions = new int[size];
        float[] scores = new float[size];
        List<String> ids = new ArrayList<>(size);
        for (int position = 0; position < size; position++) {
            SearchHit hit = hits.getAt(position);
            String id = itemId(hit, plan.config().itemIdField());
            if (id != null) {
                positions[ids.size()] = position;
                scores[ids.size()] = hit.getScore();
                ids.add(id);
            }
        }
        if (ids.isEmpty()) {
            throw new SkipException(
                SkipReason.NO_IDS,
                "no hit has [" + plan.config().itemIdField() + "]; set item_id_field"
            );
        }
        return new RescoreRequest(
            plan.controls(),
            plan.query(),
            Arrays.copyOf(positions, ids.size()),
            ids,
            scores
        );
    }

    /** Returns the JSON of {@code POST /_personalize/rescore}. */
    byte[] toJson() throws IOException {
        try (XContentBuilder json = XContentFactory.jsonBuilder()) {
            json.startObject()
                .field("user_id", controls.userId())
                .field("session_id", controls.sessionId())
                .field("query", query)
                .field("weight", controls.weight())
                .field("attributes", controls.attributes())
                .field("diversity", controls.diversity())
                .field("explain", controls.explain())
                .field("state", controls.state())
                .startArray("hits");
            for (int i = 0; i < ids.size(); i++) {
                json.startObject().field("id", ids.get(i));
                if (Float.isFinite(scores[i])) {
                    json.field("score", scores[i]);
                } else {
                    json.nullField("score");
                }
                json.endObject();
            }
            return BytesReference.toBytes(BytesReference.bytes(json.endArray().endObject()));
        }
    }

    /** Returns a hit's item id; null when it has none. */
    static String itemId(SearchHit hit, String field) {
        if (field.equals(ProcessorConfig.ID)) {
            return hit.getId();
        }
        var values = hit.field(field);
        Object value = values == null || values.getValues().isEmpty() ? null : values.getValue();
        return value == null ? null : value.toString();
    }
}
