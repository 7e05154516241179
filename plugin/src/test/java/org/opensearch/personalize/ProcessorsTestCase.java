package org.opensearch.personalize;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.IntFunction;
import java.util.stream.IntStream;

import org.apache.lucene.search.TotalHits;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.search.ShardSearchFailure;
import org.opensearch.cluster.metadata.IndexNameExpressionResolver;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.document.DocumentField;
import org.opensearch.common.settings.Settings;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.common.Strings;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;
import org.opensearch.core.xcontent.MediaTypeRegistry;
import org.opensearch.index.query.QueryBuilders;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.SearchHit;
import org.opensearch.search.SearchHits;
import org.opensearch.search.SearchModule;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.internal.InternalSearchResponse;
import org.opensearch.search.pipeline.PipelineProcessingContext;
import org.opensearch.test.ClusterServiceUtils;
import org.opensearch.threadpool.TestThreadPool;
import org.opensearch.threadpool.ThreadPool;

import static org.junit.jupiter.api.Assertions.assertEquals;

/** Both processors around an engine that is a function, and a sidecar that is a real server. */
abstract class ProcessorsTestCase {

    TestThreadPool threadPool;
    ClusterService clusterService;
    FakeSidecar sidecar;
    EngineClient client;
    NodeServices services;
    ProcessorConfig config;

    @BeforeEach
    void start() throws IOException {
        threadPool = new TestThreadPool("processors");
        clusterService = ClusterServiceUtils.createClusterService(threadPool);
        clusterService.getClusterSettings().registerSetting(PersonalizeSettings.ENDPOINT);
        sidecar = new FakeSidecar();
        client = new EngineClient(threadPool);
        services = new NodeServices(
            client,
            clusterService,
            threadPool,
            new IndexNameExpressionResolver(threadPool.getThreadContext()),
            writeables(),
            new SidecarClient(Settings.EMPTY, threadPool),
            new PersonalizeStats()
        );
        config = Fixtures.config(sidecar.endpoint());
    }

    @AfterEach
    void stop() throws IOException {
        services.sidecar().close();
        sidecar.close();
        clusterService.close();
        ThreadPool.terminate(threadPool, 10, TimeUnit.SECONDS);
    }

    private static NamedWriteableRegistry writeables() {
        PersonalizePlugin plugin = new PersonalizePlugin(Settings.EMPTY);
        SearchModule module = new SearchModule(Settings.EMPTY, List.of(plugin));
        return new NamedWriteableRegistry(module.getNamedWriteables());
    }

    void assertSkipped(SkipReason reason, Search search) throws Exception {
        SearchResponse response = search.size(3).run(500).answer();
        assertEquals(
            "{\"personalize\":{\"applied\":false,\"reason\":\"" + reason.word()
                + "\",\"state\":-1,\"model\":null}}",
            ext(response)
        );
        int from = Math.max(search.from, 0);
        assertEquals(List.of("p" + from, "p" + (from + 1), "p" + (from + 2)), ids(response));
    }

    /** One search through both processors. */
    final class Search {

        final SearchRequest request;
        final PipelineProcessingContext context = new PipelineProcessingContext();
        IntFunction<SearchResponse> engine;
        ActionListener<SearchResponse> heard = new Heard<>();
        boolean hasRequestProcessor = true;
        boolean ignoreFailure;
        int from = -1;
        int fetched;

        Search(List<SearchExtBuilder> exts) {
            SearchSourceBuilder source = new SearchSourceBuilder();
            source.query(QueryBuilders.matchQuery("title", "oat milk")).ext(exts);
            request = new SearchRequest().source(source);
        }

        Search from(int first) {
            from = first;
            request.source().from(first);
            return this;
        }

        Search size(int size) {
            request.source().size(size);
            return this;
        }

        Heard<SearchResponse> run(int found) throws Exception {
            if (hasRequestProcessor) {
                new PersonalizeRequestProcessor("t", "d", false, config, services)
                    .processRequest(request, context);
            }
            SearchSourceBuilder source = request.source();
            fetched = source.size() < 0 ? 10 : source.size();
            SearchResponse response = engine != null
                ? engine.apply(fetched)
                : response(found(Math.max(source.from(), 0), fetched, found));
            responseProcessor().processResponseAsync(request, response, context, heard);
            return heard instanceof Heard<SearchResponse> known ? known : null;
        }

        PersonalizeResponseProcessor responseProcessor() {
            return new PersonalizeResponseProcessor("t", "d", ignoreFailure, config, services);
        }
    }

    ProcessorConfig withItemField(String field) {
        return copy(config.timeoutMs(), field);
    }

    ProcessorConfig withTimeout(int timeoutMs) {
        return copy(timeoutMs, config.itemIdField());
    }

    ProcessorConfig copy(int timeoutMs, String field) {
        return new ProcessorConfig(
            config.endpoint(),
            100,
            1000,
            1.0,
            timeoutMs,
            config.onFailure(),
            field,
            ""
        );
    }

    static List<SearchExtBuilder> user(String text) {
        return Fixtures.exts(text);
    }

    static List<String> ids(SearchResponse response) {
        List<String> ids = new ArrayList<>();
        response.getHits().forEach(hit -> ids.add(hit.getId()));
        return ids;
    }

    static String ext(SearchResponse response) {
        SearchExtBuilder last = response.getInternalResponse().getSearchExtBuilders().getLast();
        return Strings.toString(MediaTypeRegistry.JSON, last);
    }

    static SearchHit hit(int position, String sku) {
        Map<String, DocumentField> fields = new HashMap<>();
        if (sku != null) {
            fields.put("sku", new DocumentField("sku", List.of(sku)));
        }
        SearchHit hit = new SearchHit(position, "p" + position, fields, Map.of());
        hit.score(position + 0.5f);
        return hit;
    }

    /** Returns the hits of one page when {@code found} match. */
    static SearchHits found(int from, int size, int found) {
        SearchHit[] hits = IntStream.range(from, Math.max(from, Math.min(from + size, found)))
            .mapToObj(i -> hit(i, null))
            .toArray(SearchHit[]::new);
        return new SearchHits(hits, new TotalHits(found, TotalHits.Relation.EQUAL_TO), 9f);
    }

    static SearchHits hits(int count) {
        return found(0, count, count);
    }

    static SearchResponse response(SearchHits hits) {
        return response(hits, ShardSearchFailure.EMPTY_ARRAY);
    }

    /** Returns the answer of a search of which a shard failed. */
    static SearchResponse partial(SearchHits hits, Exception failure) {
        return response(hits, new ShardSearchFailure[]{ new ShardSearchFailure(failure) });
    }

    private static SearchResponse response(SearchHits hits, ShardSearchFailure[] failures) {
        InternalSearchResponse sections =
            new InternalSearchResponse(hits, null, null, null, false, null, 1);
        return new SearchResponse(
            sections,
            null,
            1 + failures.length,
            1,
            0,
            5,
            failures,
            SearchResponse.Clusters.EMPTY
        );
    }
}
