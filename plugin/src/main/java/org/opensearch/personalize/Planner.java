package org.opensearch.personalize;

import java.util.List;

import org.opensearch.action.search.SearchRequest;
import org.opensearch.common.regex.Regex;
import org.opensearch.search.builder.SearchSourceBuilder;
import org.opensearch.search.fetch.subphase.FieldAndFormat;

/** Decides, before a search runs, whether, in what window and how it will be reordered. */
final class Planner {

    private final NodeServices services;

    Planner(NodeServices services) {
        this.services = services;
    }

    /**
     * Plans a search that may still be widened.
     *
     * @throws IllegalArgumentException (400) for controls that a search cannot have
     */
    SearchPlan plan(SearchRequest request, ProcessorConfig config) {
        SearchSourceBuilder source = request.source();
        Controls controls = Controls.of(source.ext(), config);
        Window window = null;
        SkipReason refusal = null;
        try {
            window = window(request, controls, config.itemIdField());
        } catch (SkipException e) {
            refusal = e.reason();
        }
        return new SearchPlan(
            config,
            controls,
            window,
            refusal,
            window == null ? null : QueryText.of(source),
            window == null ? SearchPlan.Fetch.WHOLE : fetch(source, config, window),
            source,
            services.running().task()
        );
    }

    /** Plans a search that ran already, without a request processor: its page is the window. */
    SearchPlan planPage(SearchRequest request, ProcessorConfig config, int hits) {
        SearchPlan plan = plan(request, config);
        Window window = plan.window();
        Window page =
            window == null ? null : Window.ofPage(hits, window.reordered() - window.from());
        return plan.with(page, SearchPlan.Fetch.WHOLE);
    }

    private Window window(SearchRequest request, Controls controls, String itemIdField)
        throws SkipException {
        if (services.running().isRepeated()) {
            throw new SkipException(SkipReason.UPSTREAM_ERROR, "the widened search failed");
        }
        if (controls.enabled() == false) {
            throw new SkipException(SkipReason.DISABLED, "ext.personalize.enabled is false");
        }
        if (controls.userId() == null && controls.attributes().isEmpty()) {
            throw new SkipException(SkipReason.ANONYMOUS, "nothing names a user");
        }
        int limit = services.maxResultWindow(request);
        return WindowRules.window(request, controls.windowSize(), itemIdField, limit);
    }

    private static SearchPlan.Fetch fetch(
        SearchSourceBuilder source,
        ProcessorConfig config,
        Window window
    ) {
        if (LeanFetch.isPossible(source, config, window)) {
            return SearchPlan.Fetch.LEAN;
        }
        boolean isThere = config.itemIdField().equals(ProcessorConfig.ID)
            || asksFor(config.itemIdField(), source.docValueFields())
            || asksFor(config.itemIdField(), source.fetchFields());
        return isThere ? SearchPlan.Fetch.WHOLE : SearchPlan.Fetch.WITH_ITEM_FIELD;
    }

    private static boolean asksFor(String field, List<FieldAndFormat> patterns) {
        return patterns != null
            && patterns.stream().anyMatch(pattern -> Regex.simpleMatch(pattern.field, field));
    }
}
