package org.opensearch.personalize;

import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.pipeline.PipelineProcessingContext;
import org.opensearch.tasks.CancellableTask;

/**
 * What was decided about one search before it ran, kept for the response processor in the
 * pipeline's context.
 *
 * @param config of the processor that decided
 * @param controls what the search asks for
 * @param window null when the search was refused before it was widened
 * @param refusal why it was; null when it was not
 * @param query the words searched for; null when there are none
 * @param fetch how the hits are fetched
 * @param source what the client asked for, untouched
 * @param task the search's task; null when it cannot be cancelled
 */
record SearchPlan(ProcessorConfig config, Controls controls, Window window, SkipReason refusal,
    String query, Fetch fetch, SearchSourceBuilder source, CancellableTask task) {

    /** How the hits of a window are fetched. */
    enum Fetch {
        /** As the client wants hits. */
        WHOLE,
        /** As the client wants hits, and the item field, which is not to be shown. */
        WITH_ITEM_FIELD,
        /** Ids and scores; the page's hits after. */
        LEAN
    }

    private static final String ATTRIBUTE = "personalize.plan";
    private static final String DONE = "personalize.done";

    /** Returns the plan made for this search; null when no request processor ran. */
    static SearchPlan of(PipelineProcessingContext context) {
        return (SearchPlan) context.getAttribute(ATTRIBUTE);
    }

    void keep(PipelineProcessingContext context) {
        context.setAttribute(ATTRIBUTE, this);
    }

    /** Returns true once a search: two pipelines may both hold a processor, one must act. */
    static boolean claimResponse(PipelineProcessingContext context) {
        if (context.getAttribute(DONE) != null) {
            return false;
        }
        context.setAttribute(DONE, true);
        return true;
    }

    /** Returns whether the search asks for more than the client did. */
    boolean isWidened() {
        return window != null && (window.fetched() > window.size() || fetch != Fetch.WHOLE);
    }

    boolean isCancelled() {
        return task != null && task.isCancelled();
    }

    SearchPlan refused(SkipReason reason) {
        return new SearchPlan(config, controls, null, reason, null, Fetch.WHOLE, source, task);
    }

    SearchPlan with(Window other, Fetch way) {
        return new SearchPlan(config, controls, other, refusal, query, way, source, task);
    }
}
