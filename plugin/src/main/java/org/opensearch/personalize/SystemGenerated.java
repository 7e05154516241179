package org.opensearch.personalize;

import java.util.Map;
import java.util.function.Supplier;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.search.pipeline.Processor;
import org.opensearch.search.pipeline.ProcessorGenerationContext;
import org.opensearch.search.pipeline.SearchRequestProcessor;
import org.opensearch.search.pipeline.SearchResponseProcessor;
import org.opensearch.search.pipeline.SystemGeneratedProcessor;

/**
 * Processors that attach themselves to every search with {@code ext.personalize}, without a
 * pipeline, where {@code cluster.search.enabled_system_generated_factories} names them.
 *
 * <p>They run after the processors of a pipeline, and stand back where those did the work already.
 */
final class SystemGenerated {

    static final String REQUEST_FACTORY = "personalize_request";
    static final String RESPONSE_FACTORY = "personalize_response";

    private SystemGenerated() {}

    private static boolean isAskedFor(ProcessorGenerationContext context) {
        SearchRequest request = context.searchRequest();
        return request.source() != null && Controls.asks(request.source().ext());
    }

    /** Attaches the request processor. */
    static final class RequestFactory
        implements SystemGeneratedProcessor.SystemGeneratedFactory<SearchRequestProcessor> {

        private final Supplier<NodeServices> services;

        RequestFactory(Supplier<NodeServices> services) {
            this.services = services;
        }

        @Override
        public boolean shouldGenerate(ProcessorGenerationContext context) {
            return isAskedFor(context);
        }

        @Override
        public SearchRequestProcessor create(
            Map<String, Processor.Factory<SearchRequestProcessor>> factories,
            String tag,
            String description,
            boolean ignoreFailure,
            Map<String, Object> config,
            Processor.PipelineContext context
        ) {
            return new RequestProcessor(tag, description, ignoreFailure, services.get());
        }
    }

    /** Attaches the response processor. */
    static final class ResponseFactory
        implements SystemGeneratedProcessor.SystemGeneratedFactory<SearchResponseProcessor> {

        private final Supplier<NodeServices> services;

        ResponseFactory(Supplier<NodeServices> services) {
            this.services = services;
        }

        @Override
        public boolean shouldGenerate(ProcessorGenerationContext context) {
            return isAskedFor(context);
        }

        @Override
        public SearchResponseProcessor create(
            Map<String, Processor.Factory<SearchResponseProcessor>> factories,
            String tag,
            String description,
            boolean ignoreFailure,
            Map<String, Object> config,
            Processor.PipelineContext context
        ) {
            return new ResponseProcessor(tag, description, ignoreFailure, services.get());
        }
    }

    private static final class RequestProcessor extends PersonalizeRequestProcessor
        implements SystemGeneratedProcessor {

        RequestProcessor(String tag, String description, boolean ignore, NodeServices node) {
            super(tag, description, ignore, node.defaults(), node);
        }

        @Override
        public String getType() {
            return REQUEST_FACTORY; // the name that the node's stats know the factory by
        }
    }

    private static final class ResponseProcessor extends PersonalizeResponseProcessor
        implements SystemGeneratedProcessor {

        ResponseProcessor(String tag, String description, boolean ignore, NodeServices node) {
            super(tag, description, ignore, node.defaults(), node);
        }

        @Override
        public String getType() {
            return RESPONSE_FACTORY; // the name that the node's stats know the factory by
        }
    }
}
