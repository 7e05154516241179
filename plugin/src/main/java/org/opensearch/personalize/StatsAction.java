package org.opensearch.personalize;

import java.io.IOException;

import org.opensearch.action.ActionType;
import org.opensearch.action.support.nodes.BaseNodesRequest;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.transport.TransportRequest;

/** Reads the counters of some or all nodes. */
public final class StatsAction extends ActionType<NodesStats> {

    static final String NAME = "cluster:monitor/personalize/stats";
    static final StatsAction INSTANCE = new StatsAction();

    private StatsAction() {
        super(NAME, NodesStats::new);
    }

    /** Names the nodes; none: all. */
    public static final class Request extends BaseNodesRequest<Request> {

        Request(String... nodes) {
            super(nodes);
        }

        Request(StreamInput in) throws IOException {
            super(in);
        }
    }

    /** Asks one node. */
    public static final class NodeRequest extends TransportRequest {

        NodeRequest() {}

        NodeRequest(StreamInput in) throws IOException {
            super(in);
        }
    }
}
