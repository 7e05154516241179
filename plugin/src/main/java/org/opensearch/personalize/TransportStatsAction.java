package org.opensearch.personalize;

import java.io.IOException;
import java.util.List;

import org.opensearch.action.FailedNodeException;
import org.opensearch.action.support.ActionFilters;
import org.opensearch.action.support.nodes.TransportNodesAction;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.inject.Inject;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.threadpool.ThreadPool;
import org.opensearch.transport.TransportService;

/** Gathers the counters from the nodes that keep them. */
public final class TransportStatsAction extends
    TransportNodesAction<StatsAction.Request, NodesStats, StatsAction.NodeRequest, NodeStats> {

    private final NodeServices services;

    /** Called by the node. */
    @Inject
    public TransportStatsAction(
        ThreadPool threadPool,
        ClusterService clusterService,
        TransportService transportService,
        ActionFilters filters,
        NodeServices services
    ) {
        super(
            StatsAction.NAME,
            threadPool,
            clusterService,
            transportService,
            filters,
            StatsAction.Request::new,
            StatsAction.NodeRequest::new,
            ThreadPool.Names.MANAGEMENT,
            NodeStats.class
        );
        this.services = services;
    }

    @Override
    protected NodesStats newResponse(
        StatsAction.Request request,
        List<NodeStats> nodes,
        List<FailedNodeException> failures
    ) {
        return new NodesStats(clusterService.getClusterName(), nodes, failures);
    }

    @Override
    protected StatsAction.NodeRequest newNodeRequest(StatsAction.Request request) {
        return new StatsAction.NodeRequest();
    }

    @Override
    protected NodeStats newNodeResponse(StreamInput in) throws IOException {
        return new NodeStats(in);
    }

    @Override
    protected NodeStats nodeOperation(StatsAction.NodeRequest request) {
        return new NodeStats(
            clusterService.localNode(),
            services.stats(),
            services.sidecar().inFlight()
        );
    }
}
