package org.opensearch.personalize;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.common.xcontent.json.JsonXContent;
import org.opensearch.core.common.Strings;
import org.opensearch.core.xcontent.MediaTypeRegistry;
import org.opensearch.search.builder.SearchSourceBuilder;

/**
 * What a shopper typed, as far as a search says it; the same rules as the sidecar's proxy.
 *
 * <p>{@code ext.ubi.user_query} says it outright. Otherwise the words stand in full-text clauses;
 * exact filters are the shop's doing, not the shopper's words.
 */
final class QueryText {

    private static final Set<String> FIELD_CLAUSES = Set.of(
        "match",
        "match_phrase",
        "match_phrase_prefix",
        "match_bool_prefix",
        "common",
        "prefix",
        "wildcard",
        "fuzzy",
        "match_only_text",
        "neural"
    );
    private static final Set<String> TEXT_CLAUSES =
        Set.of("multi_match", "query_string", "simple_query_string", "combined_fields");
    private static final Set<String> NOT_ASKED_FOR = Set.of("must_not", "filter", "negative");
    private static final List<String> TEXT_KEYS =
        List.of("query", "value", "wildcard", "query_text");
    /** Keys of a text that stands in a clause itself, as an intervals rule has it. */
    private static final Set<String> RULE_KEYS = Set.of("query", "prefix", "pattern", "term");
    private static final int LONGEST_TEXT = 1000;

    private QueryText() {}

    /** Returns the shopper's words; null if the search names none. */
    static String of(SearchSourceBuilder source) {
        String said = Controls.textAt(source.ext(), ForeignExts.UBI + ".user_query");
        if (said != null && said.isBlank() == false) {
            return cut(said.strip());
        }
        if (source.query() == null) {
            return null;
        }
        String json = Strings.toString(MediaTypeRegistry.JSON, source.query());
        return of(XContentHelper.convertToMap(JsonXContent.jsonXContent, json, true));
    }

    /** Returns the texts of a query's clauses, each once, in their order. */
    static String of(Map<String, Object> query) {
        Set<String> texts = new LinkedHashSet<>();
        Deque<Object> waiting = new ArrayDeque<>(List.of(query)); // no depth is too deep
        while (waiting.isEmpty() == false) {
            Object node = waiting.pop();
            if (node instanceof List<?> list) {
                pushInOrder(waiting, list);
            } else if (node instanceof Map<?, ?> map) {
                map.forEach((name, inner) -> take(name.toString(), inner, texts));
                pushInOrder(waiting, unhandled(map));
            }
        }
        return texts.isEmpty() ? null : cut(String.join(" ", texts));
    }

    private static void pushInOrder(Deque<Object> waiting, Collection<?> nodes) {
        List<Object> inner = new ArrayList<>();
        for (Object node : nodes) {
            if (node instanceof List || node instanceof Map) {
                inner.add(node);
            }
        }
        inner.reversed().forEach(waiting::push);
    }

    private static List<Object> unhandled(Map<?, ?> map) {
        List<Object> inner = new ArrayList<>();
        map.forEach((key, value) -> {
            String name = key.toString();
            boolean isHandled = FIELD_CLAUSES.contains(name)
                || TEXT_CLAUSES.contains(name)
                || NOT_ASKED_FOR.contains(name);
            if (isHandled == false) {
                inner.add(value);
            }
        });
        return inner;
    }

    private static void take(String name, Object clause, Set<String> texts) {
        if (clause instanceof Map<?, ?> map) {
            if (FIELD_CLAUSES.contains(name)) {
                map.forEach((key, asked) -> takeField(key, asked, texts));
            } else if (TEXT_CLAUSES.contains(name)) {
                takeText(map.get("query"), texts);
            }
        }
    }

    private static void takeField(Object key, Object asked, Set<String> texts) {
        if (asked instanceof Map<?, ?> options) {
            TEXT_KEYS.forEach(name -> takeText(options.get(name), texts));
        } else if (RULE_KEYS.contains(key)) {
            takeText(asked, texts);
        }
    }

    private static void takeText(Object given, Set<String> texts) {
        if (given instanceof String text && text.isBlank() == false) {
            texts.add(text.strip());
        }
    }

    private static String cut(String text) {
        int length = text.codePointCount(0, text.length());
        int end = text.offsetByCodePoints(0, Math.min(length, LONGEST_TEXT));
        return text.substring(0, end);
    }
}
