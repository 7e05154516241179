package org.opensearch.personalize;

import java.util.List;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.cluster.routing.Murmur3HashFunction;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.pipeline.AbstractProcessor;
import org.opensearch.search.pipeline.PipelineProcessingContext;
import org.opensearch.search.pipeline.StatefulSearchRequestProcessor;

/**
 * Before a search: widens the page to the window, and remembers what the client asked for.
 *
 * <p>Needs the response processor behind it, which cuts the page out again.
 */
class PersonalizeRequestProcessor extends AbstractProcessor
    implements StatefulSearchRequestProcessor {

    private final ProcessorConfig config;
    private final Planner planner;

    PersonalizeRequestProcessor(
        String tag,
        String description,
        boolean ignoreFailure,
        ProcessorConfig config,
        Planner planner
    ) {
        super(tag, description, ignoreFailure);
        this.config = config;
        this.planner = planner;
    }

    @Override
    public String getType() {
        return PersonalizeExtBuilder.NAME;
    }

    @Override
    public SearchRequest processRequest(SearchRequest request, PipelineProcessingContext context) {
        if (SearchPlan.of(context) != null) {
            return request; // another pipeline of this search holds the processor, too
        }
        SearchPlan plan = planner.plan(request, config);
        // A copy: the source belongs to the caller, who may send it again.
        SearchSourceBuilder source = request.source().shallowCopy();
        source.ext(withoutOwn(source.ext()));
        if (plan.window() != null) {
            source.from(0).size(plan.window().fetched());
        }
        if (plan.hidesItemField()) {
            source.docValueField(config.itemIdField());
        }
        if (request.preference() == null && request.pointInTimeBuilder() == null) {
            request.preference(preference(plan));
        }
        plan.keep(context);
        return request.source(source);
    }

    /**
     * Returns a preference that sends one user's searches to the same shard copies: replicas keep
     * equal scores in different orders, and a page would repeat or drop a hit of the one before.
     */
    private static String preference(SearchPlan plan) {
        boolean isPaged = plan.window() != null || plan.refusal() == SkipReason.BEYOND_WINDOW;
        if (isPaged == false) {
            return null;
        }
        int hash = Murmur3HashFunction.hash(plan.controls().userId());
        return "user-" + Integer.toHexString(hash);
    }

    /** The shards need not see the section: what it says is in the plan. */
    private static List<SearchExtBuilder> withoutOwn(List<SearchExtBuilder> exts) {
        return exts.stream().filter(ext -> ext instanceof PersonalizeExtBuilder == false).toList();
    }
}
