package org.opensearch.personalize;

import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.Objects;

import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.search.SearchExtBuilder;

/**
 * What was done to one search, told in the response's {@code ext.personalize}.
 *
 * <p>Written between nodes under a name of its own: the name {@code personalize} belongs to the
 * request's section.
 */
public final class PersonalizeAnswer extends SearchExtBuilder {

    /** Name on the wire between nodes. */
    public static final String NAME = "personalize_answer";

    private final boolean applied;
    private final String reason;
    private final long state;
    private final String model;
    private final List<Map<String, Object>> hits;

    private PersonalizeAnswer(
        boolean applied,
        String reason,
        long state,
        String model,
        List<Map<String, Object>> hits
    ) {
        this.applied = applied;
        this.reason = reason;
        this.state = state;
        this.model = model;
        this.hits = hits;
    }

    /** Reads what {@link #writeTo} wrote on another node. */
    public PersonalizeAnswer(StreamInput in) throws IOException {
        this.applied = in.readBoolean();
        this.reason = in.readOptionalString();
        this.state = in.readLong();
        this.model = in.readOptionalString();
        this.hits = in.readBoolean() ? in.readList(StreamInput::readMap) : null;
    }

    /**
     * A page in its personal order.
     *
     * @param hits the page's hits explained, in shown order; null when not asked for
     */
    static PersonalizeAnswer applied(long state, String model, List<Map<String, Object>> hits) {
        return new PersonalizeAnswer(true, null, state, model, hits);
    }

    /** A page in the engine's order; {@code explain}: whether an explanation was asked for. */
    static PersonalizeAnswer skipped(SkipReason reason, boolean explain) {
        return new PersonalizeAnswer(false, reason.word(), -1L, null, explain ? List.of() : null);
    }

    @Override
    public String getWriteableName() {
        return NAME;
    }

    @Override
    public void writeTo(StreamOutput out) throws IOException {
        out.writeBoolean(applied);
        out.writeOptionalString(reason);
        out.writeLong(state);
        out.writeOptionalString(model);
        out.writeBoolean(hits != null);
        if (hits != null) {
            out.writeCollection(hits, StreamOutput::writeMap);
        }
    }

    @Override
    public XContentBuilder toXContent(XContentBuilder builder, Params params) throws IOException {
        builder.startObject(PersonalizeExtBuilder.NAME)
            .field("applied", applied)
            .field("reason", reason)
            .field("state", state)
            .field("model", model);
        if (hits != null) {
            builder.field("hits", hits);
        }
        return builder.endObject();
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof PersonalizeAnswer that
            && applied == that.applied
            && Objects.equals(reason, that.reason)
            && state == that.state
            && Objects.equals(model, that.model)
            && Objects.equals(hits, that.hits);
    }

    @Override
    public int hashCode() {
        return Objects.hash(applied, reason, state, model, hits);
    }
}
