package org.opensearch.personalize;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.cluster.routing.Murmur3HashFunction;
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
    private final NodeServices services;

    PersonalizeRequestProcessor(
        String tag,
        String description,
        boolean ignoreFailure,
        ProcessorConfig config,
        NodeServices services
    ) {
        super(tag, description, ignoreFailure);
        this.config = config;
        this.planner = new Planner(services);
        this.services = services;
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
        // The source belongs to the caller, who may send it again: only a copy is changed.
        SearchSourceBuilder source = copy(plan);
        source.ext(PersonalizeExtBuilder.without(source.ext()));
        if (plan.window() != null) {
            source.from(0).size(plan.window().fetched());
        }
        if (plan.fetch() == SearchPlan.Fetch.LEAN) {
            LeanFetch.narrow(source, config.itemIdField());
        } else if (plan.fetch() == SearchPlan.Fetch.WITH_ITEM_FIELD) {
            source.docValueField(config.itemIdField());
        }
        if (request.preference() == null && request.pointInTimeBuilder() == null) {
            request.preference(preference(plan));
        }
        plan.keep(context);
        if (plan.isWidened()) {
            services.running().widened();
        }
        return request.source(source);
    }

    /** A shallow copy shares its list of doc value fields with the original. */
    private SearchSourceBuilder copy(SearchPlan plan) {
        boolean addsToList = plan.fetch() == SearchPlan.Fetch.WITH_ITEM_FIELD
            && plan.source().docValueFields() != null;
        return addsToList ? services.deepCopy(plan.source()) : plan.source().shallowCopy();
    }

    /**
     * Returns a preference that sends one user's searches to the same shard copies: replicas keep
     * equal scores in different orders, and a page would repeat or drop a hit of the one before.
     */
    private static String preference(SearchPlan plan) {
        boolean isPaged = plan.window() != null || plan.refusal() == SkipReason.BEYOND_WINDOW;
        String userId = plan.controls().userId();
        if (isPaged == false || userId == null) {
            return null;
        }
        int hash = Murmur3HashFunction.hash(userId);
        return "user-" + Integer.toHexString(hash);
    }
}
