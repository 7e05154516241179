package org.opensearch.personalize;

import org.opensearch.search.pipeline.PipelineProcessingContext;
import org.opensearch.tasks.CancellableTask;

/**
 * What the request processor decided about one search, kept for the response processor in the
 * pipeline's context.
 *
 * @param config of the processor that decided
 * @param controls what the search asks for
 * @param window null when the search was refused before it was widened
 * @param refusal why it was; null when it was not
 * @param query the words searched for; null when there are none
 * @param hidesItemField whether the item field was added to the fetch, and must not be shown
 * @param task the search's task; null when it cannot be cancelled
 */
record SearchPlan(ProcessorConfig config, Controls controls, Window window, SkipReason refusal,
    String query, boolean hidesItemField, CancellableTask task) {

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

    boolean isCancelled() {
        return task != null && task.isCancelled();
    }
}
