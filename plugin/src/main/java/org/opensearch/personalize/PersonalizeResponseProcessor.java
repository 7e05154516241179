package org.opensearch.personalize;

import java.io.IOException;

import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.Logger;
import org.opensearch.OpenSearchStatusException;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.support.ContextPreservingActionListener;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.rest.RestStatus;
import org.opensearch.core.tasks.TaskCancelledException;
import org.opensearch.search.pipeline.AbstractProcessor;
import org.opensearch.search.pipeline.PipelineProcessingContext;
import org.opensearch.search.pipeline.SearchResponseProcessor;

/**
 * After a search: asks the sidecar for the window's order, and answers with the client's page.
 *
 * <p>Whatever goes wrong ends in the engine's order and a reason, or, where the pipeline says
 * {@code on_failure: fail}, in an error.
 */
class PersonalizeResponseProcessor extends AbstractProcessor implements SearchResponseProcessor {

    private static final Logger logger = LogManager.getLogger(PersonalizeResponseProcessor.class);

    private final ProcessorConfig config;
    private final Planner planner;
    private final NodeServices services;

    PersonalizeResponseProcessor(
        String tag,
        String description,
        boolean ignoreFailure,
        ProcessorConfig config,
        NodeServices services
    ) {
        super(tag, description, ignoreFailure);
        // An ignored failure would show the window as it was fetched, not the client's page.
        this.config = ignoreFailure ? config.with(OnFailure.KEEP_ORDER) : config;
        this.planner = new Planner(services);
        this.services = services;
    }

    @Override
    public String getType() {
        return PersonalizeExtBuilder.NAME;
    }

    @Override
    public SearchResponse processResponse(SearchRequest request, SearchResponse response) {
        throw new UnsupportedOperationException("personalize answers asynchronously only");
    }

    @Override
    public void processResponseAsync(
        SearchRequest request,
        SearchResponse response,
        PipelineProcessingContext context,
        ActionListener<SearchResponse> listener
    ) {
        if (SearchPlan.claimResponse(context) == false) {
            listener.onResponse(response);
            return;
        }
        SearchPlan plan;
        try {
            SearchPlan known = SearchPlan.of(context);
            int hits = response.getHits().getHits().length;
            plan = known != null ? known : planner.planPage(request, config, hits);
        } catch (RuntimeException e) {
            listener.onFailure(e); // the search asks for what it cannot have
            return;
        }
        ask(plan, response, ActionListener.notifyOnce(listener));
    }

    private void ask(
        SearchPlan plan,
        SearchResponse response,
        ActionListener<SearchResponse> listener
    ) {
        RescoreRequest asked;
        SidecarClient.Question question;
        try {
            if (plan.refusal() != null) {
                throw new SkipException(plan.refusal(), "");
            }
            asked = RescoreRequest.of(plan, response.getHits());
            question = question(plan, asked);
        } catch (SkipException e) {
            skip(plan, response, e, listener);
            return;
        } catch (IOException | RuntimeException e) {
            skip(plan, response, new SkipException(SkipReason.RANKING_ERROR, "", e), listener);
            return;
        }
        services.sidecar().ask(question, inThisContext(new ActionListener<>() {
            @Override
            public void onResponse(RescoreAnswer answer) {
                apply(plan, response, asked, answer, listener);
            }

            @Override
            public void onFailure(Exception failure) {
                fail(plan, response, failure, listener);
            }
        }));
    }

    /** The search goes on with the headers and the user that it came with. */
    private ActionListener<RescoreAnswer> inThisContext(ActionListener<RescoreAnswer> listener) {
        return ContextPreservingActionListener.wrapPreservingContext(
            listener,
            services.threadContext()
        );
    }

    private SidecarClient.Question question(SearchPlan plan, RescoreRequest asked)
        throws IOException {
        return new SidecarClient.Question(
            config.endpoint(),
            asked.toJson(),
            asked.ids().size(),
            config.timeoutMs(),
            plan::isCancelled
        );
    }

    private void apply(
        SearchPlan plan,
        SearchResponse response,
        RescoreRequest asked,
        RescoreAnswer answer,
        ActionListener<SearchResponse> listener
    ) {
        if (answer.refusal() != null) {
            skip(plan, response, new SkipException(answer.refusal(), "sidecar's answer"), listener);
            return;
        }
        SearchResponse changed;
        try {
            changed = Responses.applied(response, plan, asked, answer);
        } catch (RuntimeException e) {
            skip(plan, response, new SkipException(SkipReason.RANKING_ERROR, "", e), listener);
            return;
        }
        services.stats().applied();
        listener.onResponse(changed);
    }

    private void fail(
        SearchPlan plan,
        SearchResponse response,
        Exception failure,
        ActionListener<SearchResponse> listener
    ) {
        if (failure instanceof TaskCancelledException) {
            services.stats().cancelled();
            listener.onFailure(failure);
        } else if (failure instanceof SkipException e) {
            skip(plan, response, e, listener);
        } else {
            SkipException skip = new SkipException(SkipReason.RANKING_ERROR, "", failure);
            skip(plan, response, skip, listener);
        }
    }

    private void skip(
        SearchPlan plan,
        SearchResponse response,
        SkipException skip,
        ActionListener<SearchResponse> listener
    ) {
        services.stats().skipped(skip.reason());
        logger.debug("search not personalised: {} {}", skip.reason(), skip.getMessage(), skip);
        if (skip.reason().isFailure() && config.onFailure() == OnFailure.FAIL) {
            listener.onFailure(error(skip));
        } else {
            listener.onResponse(Responses.skipped(response, plan, skip.reason()));
        }
    }

    private OpenSearchStatusException error(SkipException skip) {
        return new OpenSearchStatusException(
            "processor [{}] with tag [{}] could not personalise: {} ({})",
            RestStatus.SERVICE_UNAVAILABLE,
            skip,
            getType(),
            getTag(),
            skip.reason().word(),
            skip.getMessage()
        );
    }
}
