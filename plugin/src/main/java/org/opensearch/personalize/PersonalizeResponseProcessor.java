package org.opensearch.personalize;

import java.io.IOException;
import java.util.stream.Stream;

import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.Logger;
import org.opensearch.OpenSearchStatusException;
import org.opensearch.action.search.SearchRequest;
import org.opensearch.action.search.SearchResponse;
import org.opensearch.action.support.ContextPreservingActionListener;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.rest.RestStatus;
import org.opensearch.core.tasks.TaskCancelledException;
import org.opensearch.search.SearchHits;
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
    private final PageFetch pages;

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
        this.pages = new PageFetch(services);
    }

    /** Never: what was fetched for the window is not the client's page, and would be shown. */
    @Override
    public boolean isIgnoreFailure() {
        return false;
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
        new Search(request, plan, ActionListener.notifyOnce(listener)).begin(response);
    }

    /** One search on its way through: asked about, decided, its page put together. */
    private final class Search {

        private final SearchRequest request;
        private final SearchPlan plan;
        private final ActionListener<SearchResponse> listener;

        Search(SearchRequest request, SearchPlan plan, ActionListener<SearchResponse> listener) {
            this.request = request;
            this.plan = plan;
            this.listener = listener;
        }

        /** Where shards failed only at what the client did not ask for, the client's own counts. */
        void begin(SearchResponse response) {
            boolean mayBeOurDoing = plan.isWidened()
                && Stream.of(response.getShardFailures())
                    .anyMatch(shard -> SearchFilter.isAboutTheSearch(shard.status()));
            if (mayBeOurDoing == false) {
                ask(response);
                return;
            }
            pages.own(request, plan, inThisContext(ActionListener.wrap(own -> {
                if (own.getFailedShards() < response.getFailedShards()) {
                    SearchPlan refused = plan.refused(SkipReason.UPSTREAM_ERROR);
                    new Search(request, refused, listener).ask(own);
                } else {
                    ask(response);
                }
            }, listener::onFailure)));
        }

        private void ask(SearchResponse response) {
            RescoreRequest asked;
            SidecarClient.Question question;
            try {
                if (plan.refusal() != null) {
                    throw new SkipException(plan.refusal(), "");
                }
                asked = RescoreRequest.of(plan, response.getHits());
                question = question(asked);
            } catch (SkipException e) {
                skip(response, e);
                return;
            } catch (IOException | RuntimeException e) {
                skip(response, new SkipException(SkipReason.RANKING_ERROR, "", e));
                return;
            }
            services.sidecar().ask(question, inThisContext(new ActionListener<>() {
                @Override
                public void onResponse(RescoreAnswer answer) {
                    guard(() -> decide(response, asked, answer));
                }

                @Override
                public void onFailure(Exception failure) {
                    guard(() -> fail(response, failure));
                }
            }));
        }

        /** Answers with an error where a step has a bug: better than not at all. */
        private void guard(Runnable step) {
            try {
                step.run();
            } catch (RuntimeException e) {
                listener.onFailure(e);
            }
        }

        private SidecarClient.Question question(RescoreRequest asked) throws IOException {
            return new SidecarClient.Question(
                config.endpoint(),
                services.trusts(config.endpoint()),
                asked.toJson(),
                asked.ids().size(),
                config.timeoutMs(),
                plan::isCancelled
            );
        }

        private void decide(SearchResponse response, RescoreRequest asked, RescoreAnswer answer) {
            if (answer.refusal() != null) {
                skip(response, new SkipException(answer.refusal(), "sidecar's answer"));
                return;
            }
            int size = Math.min(plan.window().reordered(), response.getHits().getHits().length);
            respond(response, Outcome.applied(size, asked, answer));
        }

        private void fail(SearchResponse response, Exception failure) {
            if (failure instanceof TaskCancelledException) {
                services.stats().cancelled();
                listener.onFailure(failure);
            } else if (failure instanceof SkipException skip) {
                skip(response, skip);
            } else {
                skip(response, new SkipException(SkipReason.RANKING_ERROR, "", failure));
            }
        }

        private void skip(SearchResponse response, SkipException skip) {
            logger.debug("search not personalised: {} {}", skip.reason(), skip.getMessage(), skip);
            if (skip.reason().isFailure() && config.onFailure() == OnFailure.FAIL) {
                services.stats().skipped(skip.reason());
                listener.onFailure(error(skip));
            } else {
                respond(response, Outcome.skipped(skip.reason()));
            }
        }

        private void respond(SearchResponse response, Outcome outcome) {
            if (plan.window() == null) {
                finish(response, response.getHits(), outcome);
                return;
            }
            SearchHits page = Reorderer.page(response.getHits(), outcome.order(), plan.window());
            if (plan.fetch() != SearchPlan.Fetch.LEAN) {
                finish(response, page, outcome);
                return;
            }
            pages.page(request, plan, page, inThisContext(ActionListener.wrap(hits -> {
                if (hits != null) {
                    finish(response, hits, outcome);
                } else {
                    startAgain();
                }
            }, listener::onFailure)));
        }

        /** The index changed between the two fetches: once more, in one. */
        private void startAgain() {
            SearchPlan whole = plan.with(plan.window(), SearchPlan.Fetch.WITH_ITEM_FIELD);
            Search search = new Search(request, whole, listener);
            pages.whole(
                request,
                plan,
                inThisContext(ActionListener.wrap(search::begin, listener::onFailure))
            );
        }

        private void finish(SearchResponse response, SearchHits page, Outcome outcome) {
            if (plan.fetch() == SearchPlan.Fetch.WITH_ITEM_FIELD) {
                page.forEach(hit -> hit.removeDocumentField(plan.config().itemIdField()));
            }
            services.stats().count(outcome.reason());
            int from = plan.window() == null ? 0 : plan.window().from();
            PersonalizeAnswer answer = outcome.tell(page, from, plan.controls().explain());
            listener.onResponse(Responses.with(response, page, answer));
        }
    }

    /** The search goes on with the headers and the user that it came with. */
    private <T> ActionListener<T> inThisContext(ActionListener<T> listener) {
        return ContextPreservingActionListener.wrapPreservingContext(
            listener,
            services.threadContext()
        );
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
