package org.opensearch.personalize;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.util.stream.Stream;

import org.opensearch.action.search.SearchContextId;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.cluster.ClusterState;
import org.opensearch.cluster.metadata.IndexMetadata;
import org.opensearch.cluster.metadata.IndexNameExpressionResolver;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.io.stream.BytesStreamOutput;
import org.opensearch.common.settings.Settings;
import org.opensearch.common.util.concurrent.ThreadContext;
import org.opensearch.core.common.io.stream.NamedWriteableAwareStreamInput;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.index.Index;
import org.opensearch.core.index.shard.ShardId;
import org.opensearch.index.IndexSettings;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.threadpool.ThreadPool;
import org.opensearch.transport.client.Client;

import static org.opensearch.transport.RemoteClusterAware.REMOTE_CLUSTER_INDEX_SEPARATOR;

/** What the processors need of the node: its threads, its settings, its indices. */
public record NodeServices(Client client, ClusterService clusterService, ThreadPool threadPool,
    IndexNameExpressionResolver resolver, NamedWriteableRegistry writeables,
    SidecarClient sidecar, PersonalizeStats stats) {

    private static final int DEFAULT_MAX_RESULT_WINDOW =
        IndexSettings.MAX_RESULT_WINDOW_SETTING.get(Settings.EMPTY);

    ThreadContext threadContext() {
        return threadPool.getThreadContext();
    }

    /** Returns the defaults of processors that are built now. */
    ProcessorConfig defaults() {
        return ProcessorConfig.defaults(clusterService.getClusterSettings());
    }

    /**
     * Returns whether an endpoint may be told the secret of the keystore: one at the scheme and
     * port of the node's own. Whoever writes a pipeline chooses among the allowed hosts, and could
     * listen at another port of one.
     */
    boolean trusts(URI endpoint) {
        String text = clusterService.getClusterSettings().get(PersonalizeSettings.ENDPOINT);
        URI own = URI.create(text);
        return endpoint.getScheme().equals(own.getScheme()) && endpoint.getPort() == own.getPort();
    }

    /** Returns a copy of a search that shares nothing with it. */
    SearchSourceBuilder deepCopy(SearchSourceBuilder source) {
        try (BytesStreamOutput out = new BytesStreamOutput()) {
            source.writeTo(out);
            StreamInput in = out.bytes().streamInput();
            return new SearchSourceBuilder(new NamedWriteableAwareStreamInput(in, writeables));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Returns the search that this thread works for. */
    RunningSearch running() {
        RunningSearch running = SearchFilter.running(threadContext());
        return running != null ? running : new RunningSearch(null, false);
    }

    /**
     * Returns the least {@code index.max_result_window} of the searched indices.
     *
     * <p>Indices of another cluster, and names that resolve to nothing, count with the default. If
     * they allow less, the widened search fails, and runs again as the client sent it.
     */
    int maxResultWindow(SearchRequest request) {
        ClusterState state = clusterService.state();
        int least = DEFAULT_MAX_RESULT_WINDOW;
        for (Index index : concreteIndices(state, request)) {
            IndexMetadata metadata = state.metadata().index(index);
            if (metadata != null) {
                int limit = IndexSettings.MAX_RESULT_WINDOW_SETTING.get(metadata.getSettings());
                least = Math.min(least, limit);
            }
        }
        return least;
    }

    private Index[] concreteIndices(ClusterState state, SearchRequest request) {
        try {
            if (request.pointInTimeBuilder() != null) {
                String id = request.pointInTimeBuilder().getId();
                return SearchContextId.decode(writeables, id)
                    .shards()
                    .keySet()
                    .stream()
                    .map(ShardId::getIndex)
                    .distinct()
                    .toArray(Index[]::new);
            }
            String[] here = Stream.of(request.indices())
                .filter(name -> name.indexOf(REMOTE_CLUSTER_INDEX_SEPARATOR) < 0)
                .toArray(String[]::new);
            boolean isElsewhere = here.length == 0 && request.indices().length > 0;
            return isElsewhere
                ? Index.EMPTY_ARRAY
                : resolver.concreteIndices(state, request.indicesOptions(), true, here);
        } catch (RuntimeException e) {
            // A name that is not there or not allowed: the search itself says so, not this look.
            return Index.EMPTY_ARRAY;
        }
    }
}
