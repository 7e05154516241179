package org.opensearch.personalize;

import java.io.IOException;
import java.util.Map;
import java.util.Objects;

import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.search.SearchExtBuilder;

/**
 * An ext section of another convention, taken as it is, because it may name the user.
 *
 * <p>OpenSearch refuses a search with a section that no plugin registered; this class stands in
 * where the section's own plugin is not installed.
 */
public final class ForeignExtBuilder extends SearchExtBuilder {

    private final String name;
    private final Map<String, Object> content;

    ForeignExtBuilder(String name, Map<String, Object> content) {
        this.name = name;
        this.content = content;
    }

    /** Reads what {@link #writeTo} wrote on another node, for the section of this name. */
    ForeignExtBuilder(String name, StreamInput in) throws IOException {
        this(name, in.readMap());
    }

    static ForeignExtBuilder fromXContent(String name, XContentParser parser) throws IOException {
        return new ForeignExtBuilder(name, parser.map());
    }

    @Override
    public String getWriteableName() {
        return name;
    }

    @Override
    public void writeTo(StreamOutput out) throws IOException {
        out.writeMap(content);
    }

    @Override
    public XContentBuilder toXContent(XContentBuilder builder, Params params) throws IOException {
        return builder.field(name, content);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof ForeignExtBuilder that
            && name.equals(that.name)
            && content.equals(that.content);
    }

    @Override
    public int hashCode() {
        return Objects.hash(name, content);
    }
}
