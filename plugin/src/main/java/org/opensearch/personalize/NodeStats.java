package org.opensearch.personalize;

import java.io.IOException;
import java.util.Map;

import org.opensearch.action.support.nodes.BaseNodeResponse;
import org.opensearch.cluster.node.DiscoveryNode;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.ToXContentFragment;
import org.opensearch.core.xcontent.XContentBuilder;

/** What became of the searches that one node coordinated, since it started. */
public final class NodeStats extends BaseNodeResponse implements ToXContentFragment {

    private final long applied;
    private final long cancelled;
    private final Map<String, Long> skipped;
    private final int inFlight;

    NodeStats(DiscoveryNode node, PersonalizeStats stats, int inFlight) {
        super(node);
        this.applied = stats.appliedCount();
        this.cancelled = stats.cancelledCount();
        this.skipped = stats.skippedCounts();
        this.inFlight = inFlight;
    }

    NodeStats(StreamInput in) throws IOException {
        super(in);
        this.applied = in.readVLong();
        this.cancelled = in.readVLong();
        this.skipped = in.readMap(StreamInput::readString, StreamInput::readVLong);
        this.inFlight = in.readVInt();
    }

    @Override
    public void writeTo(StreamOutput out) throws IOException {
        super.writeTo(out);
        out.writeVLong(applied);
        out.writeVLong(cancelled);
        out.writeMap(skipped, StreamOutput::writeString, StreamOutput::writeVLong);
        out.writeVInt(inFlight);
    }

    @Override
    public XContentBuilder toXContent(XContentBuilder builder, Params params) throws IOException {
        return builder.field("applied", applied)
            .field("skipped", skipped)
            .field("cancelled", cancelled)
            .field("in_flight", inFlight);
    }
}
