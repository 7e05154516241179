package org.opensearch.personalize;

import java.util.List;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.fetch.subphase.FieldAndFormat;

/** Decides, before a search runs, whether and in what window it will be reordered. */
final class Planner {

    private final NodeServices services;

    Planner(NodeServices services) {
        this.services = services;
    }

    /** Plans a search that may still be widened. */
    SearchPlan plan(SearchRequest request, ProcessorConfig config) {
        Controls controls = Controls.of(request.source().ext(), config);
        Window window = null;
        SkipReason refusal = null;
        try {
            window = window(request, controls);
        } catch (SkipException e) {
            refusal = e.reason();
        }
        boolean hides = window != null && lacksItemField(request.source(), config);
        return plan(request, config, controls, window, refusal, hides);
    }

    /** Plans a search that ran already, without a request processor: its page is the window. */
    SearchPlan planPage(SearchRequest request, ProcessorConfig config, int hits) {
        SearchPlan plan = plan(request, config);
        Window page = plan.window() == null
            ? null
            : Window.ofPage(hits, plan.window().reordered() - plan.window().from());
        return plan(request, config, plan.controls(), page, plan.refusal(), false);
    }

    private SearchPlan plan(
        SearchRequest request,
        ProcessorConfig config,
        Controls controls,
        Window window,
        SkipReason refusal,
        boolean hidesItemField
    ) {
        return new SearchPlan(
            config,
            controls,
            window,
            refusal,
            window == null ? null : QueryText.of(request.source()),
            hidesItemField,
            services.currentTask()
        );
    }

    private Window window(SearchRequest request, Controls controls) throws SkipException {
        if (controls.enabled() == false) {
            throw new SkipException(SkipReason.DISABLED, "ext.personalize.enabled is false");
        }
        if (controls.userId() == null) {
            throw new SkipException(SkipReason.ANONYMOUS, "nothing names a user");
        }
        int limit = services.maxResultWindow(request);
        return WindowRules.window(request, controls.windowSize(), limit);
    }

    private static boolean lacksItemField(SearchSourceBuilder source, ProcessorConfig config) {
        List<FieldAndFormat> fields = source.docValueFields();
        return config.itemIdField().equals(ProcessorConfig.ID) == false
            && (fields == null
                || fields.stream().noneMatch(field -> field.field.equals(config.itemIdField())));
    }
}
