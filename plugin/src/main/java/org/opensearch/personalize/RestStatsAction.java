package org.opensearch.personalize;

import java.util.List;

import org.opensearch.core.common.Strings;
import org.opensearch.rest.BaseRestHandler;
import org.opensearch.rest.RestRequest;
import org.opensearch.rest.action.RestActions.NodesResponseRestListener;
import org.opensearch.transport.client.node.NodeClient;

import static org.opensearch.rest.RestRequest.Method.GET;

/** {@code GET /_plugins/_personalize/[{nodes}/]stats}: what became of each node's searches. */
public final class RestStatsAction extends BaseRestHandler {

    @Override
    public String getName() {
        return "personalize_stats";
    }

    @Override
    public List<Route> routes() {
        return List.of(
            new Route(GET, "/_plugins/_personalize/stats"),
            new Route(GET, "/_plugins/_personalize/{nodes}/stats")
        );
    }

    @Override
    protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) {
        String[] nodes = Strings.splitStringByCommaToArray(request.param("nodes", ""));
        StatsAction.Request stats = new StatsAction.Request(nodes);
        return channel -> client.execute(
            StatsAction.INSTANCE,
            stats,
            new NodesResponseRestListener<>(channel)
        );
    }
}
