package org.opensearch.personalize;

import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

import org.opensearch.search.pipeline.Processor;
import org.opensearch.search.pipeline.SearchRequestProcessor;
import org.opensearch.search.pipeline.SearchResponseProcessor;

/**
 * Builds the processors that a pipeline names; both take the same keys.
 *
 * @param <T> request or response processor
 */
abstract class ProcessorFactory<T extends Processor> implements Processor.Factory<T> {

    private final Supplier<NodeServices> services;

    ProcessorFactory(Supplier<NodeServices> services) {
        this.services = services;
    }

    @Override
    public T create(
        Map<String, Processor.Factory<T>> factories,
        String tag,
        String description,
        boolean ignoreFailure,
        Map<String, Object> config,
        Processor.PipelineContext context
    ) {
        NodeServices node = services.get();
        List<String> hosts = node.clusterService()
            .getClusterSettings()
            .get(PersonalizeSettings.ALLOWED_HOSTS);
        ProcessorConfig read = node.defaults().with(tag, config, hosts);
        return build(tag, description, ignoreFailure, read, node);
    }

    abstract T build(
        String tag,
        String description,
        boolean ignoreFailure,
        ProcessorConfig config,
        NodeServices node
    );

    /** Builds request processors. */
    static final class ForRequests extends ProcessorFactory<SearchRequestProcessor> {

        ForRequests(Supplier<NodeServices> services) {
            super(services);
        }

        @Override
        SearchRequestProcessor build(
            String tag,
            String description,
            boolean ignoreFailure,
            ProcessorConfig config,
            NodeServices node
        ) {
            return new PersonalizeRequestProcessor(
                tag,
                description,
                ignoreFailure,
                config,
                node
            );
        }
    }

    /** Builds response processors. */
    static final class ForResponses extends ProcessorFactory<SearchResponseProcessor> {

        ForResponses(Supplier<NodeServices> services) {
            super(services);
        }

        @Override
        SearchResponseProcessor build(
            String tag,
            String description,
            boolean ignoreFailure,
            ProcessorConfig config,
            NodeServices node
        ) {
            return new PersonalizeResponseProcessor(tag, description, ignoreFailure, config, node);
        }
    }
}
