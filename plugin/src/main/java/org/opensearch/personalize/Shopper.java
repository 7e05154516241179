package org.opensearch.personalize;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.common.io.stream.Writeable;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.rest.RestUtils;

/**
 * Who searches, as far as the search itself says.
 *
 * @param userId null when it does not say
 * @param sessionId null when it does not say
 * @param attributes what is known of the user besides events, column by column; empty: nothing
 */
record Shopper(String userId, String sessionId, Map<String, Object> attributes)
    implements
        Writeable {

    /** Somebody of whom nothing is said. */
    static final Shopper UNKNOWN = new Shopper(null, null, Map.of());

    private static final int LONGEST_ID_BYTES = 512; // OpenSearch's limit of an _id
    private static final int MOST_ATTRIBUTES = 50;

    /** Reads what {@link #writeTo} wrote on another node. */
    Shopper(StreamInput in) throws IOException {
        this(in.readOptionalString(), in.readOptionalString(), in.readMap());
    }

    @Override
    public void writeTo(StreamOutput out) throws IOException {
        out.writeOptionalString(userId);
        out.writeOptionalString(sessionId);
        out.writeMap(attributes);
    }

    /**
     * Reads an id, spaces and all, as events have it; shops number their users, and a number is
     * kept as its digits.
     */
    static String readId(XContentParser parser) throws IOException {
        String text = parser.text();
        if (isShort(text) == false) {
            throw new IllegalArgumentException("must be at most " + LONGEST_ID_BYTES + " bytes");
        }
        if (StandardCharsets.UTF_8.newEncoder().canEncode(text) == false) {
            throw new IllegalArgumentException("holds half a character");
        }
        return text;
    }

    /** Returns whether a text is short enough to be an id. */
    static boolean isShort(String text) {
        return text.getBytes(StandardCharsets.UTF_8).length <= LONGEST_ID_BYTES;
    }

    /** Reads an object of plain values, or the same as {@code age=35-44&region=north}. */
    static Map<String, Object> readAttributes(XContentParser parser) throws IOException {
        Map<String, Object> found = switch (parser.currentToken()) {
            case VALUE_NULL -> Map.of();
            case START_OBJECT -> parser.map();
            case VALUE_STRING -> pairs(parser.text());
            default -> throw new IllegalArgumentException("must be an object");
        };
        boolean isPlain = found.values()
            .stream()
            .allMatch(v -> v instanceof String || v instanceof Number || v instanceof Boolean);
        if (isPlain == false || found.size() > MOST_ATTRIBUTES) {
            throw new IllegalArgumentException(
                "must be an object of at most " + MOST_ATTRIBUTES + " texts, numbers or booleans"
            );
        }
        return found;
    }

    private static Map<String, Object> pairs(String text) {
        Map<String, String> pairs = new LinkedHashMap<>();
        RestUtils.decodeQueryString(text, 0, pairs);
        return new LinkedHashMap<>(pairs);
    }
}
