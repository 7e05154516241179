package org.opensearch.personalize;

import java.util.List;
import java.util.Map;

import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.common.xcontent.json.JsonXContent;

/**
 * What the sidecar answered.
 *
 * @param refusal null when it ranked
 * @param state version of the user's state that was ranked with; -1: none
 * @param model version of the model; null: none
 * @param order permutation of the hits that were sent, best first
 * @param explanations one object a hit that was sent; empty when not asked for
 */
record RescoreAnswer(SkipReason refusal, long state, String model, int[] order,
    List<Map<String, Object>> explanations) {

    private static final int LONGEST_DETAIL = 200;

    /**
     * Reads an answer.
     *
     * @param hits number of hits that were sent
     * @throws SkipException {@code sidecar_error} for anything that is no answer to them
     */
    static RescoreAnswer parse(int status, byte[] body, int hits) throws SkipException {
        if (status == 400 || status == 413) {
            String detail = "sidecar refuses the search with status " + status;
            throw new SkipException(SkipReason.SIDECAR_ERROR, detail, false);
        }
        if (status != 200) {
            throw unusable("status is " + status, null);
        }
        Map<String, Object> json;
        try {
            json =
                XContentHelper.convertToMap(JsonXContent.jsonXContent, body, 0, body.length, true);
        } catch (RuntimeException e) {
            throw unusable("body is no JSON object", e);
        }
        if (json.get("applied") instanceof Boolean applied) {
            return applied ? ranked(json, hits) : refused(json);
        }
        throw unusable("applied is missing", null);
    }

    private static RescoreAnswer refused(Map<String, Object> json) {
        String word = json.get("reason") instanceof String text ? text : "";
        return new RescoreAnswer(
            SkipReason.of(word),
            number(json.get("state")),
            null,
            new int[0],
            List.of()
        );
    }

    private static RescoreAnswer ranked(Map<String, Object> json, int hits) throws SkipException {
        int[] order = order(json.get("order"));
        if (Reorderer.isPermutation(order, hits) == false) {
            throw unusable("order is no permutation of " + hits + " hits", null);
        }
        return new RescoreAnswer(
            null,
            number(json.get("state")),
            json.get("model") instanceof String model ? model : null,
            order,
            explanations(json.get("explanations"), hits)
        );
    }

    private static int[] order(Object value) throws SkipException {
        if (value instanceof List<?> list
            && list.stream().allMatch(Integer.class::isInstance)) {
            return list.stream().mapToInt(Integer.class::cast).toArray();
        }
        throw unusable("order is no list of positions", null);
    }

    @SuppressWarnings("unchecked") // each element is looked at; JSON keys are texts
    private static List<Map<String, Object>> explanations(Object value, int hits)
        throws SkipException {
        if (value == null) {
            return List.of();
        }
        if (value instanceof List<?> list
            && list.size() == hits
            && list.stream().allMatch(Map.class::isInstance)) {
            return (List<Map<String, Object>>) list;
        }
        throw unusable("explanations are not one object a hit", null);
    }

    private static long number(Object value) {
        return value instanceof Number number ? number.longValue() : -1L;
    }

    private static SkipException unusable(String detail, Throwable cause) {
        String text = "sidecar's answer: " + detail;
        String cut = text.length() > LONGEST_DETAIL ? text.substring(0, LONGEST_DETAIL) : text;
        return new SkipException(SkipReason.SIDECAR_ERROR, cut, cause);
    }
}
