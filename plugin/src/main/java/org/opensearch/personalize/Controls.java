package org.opensearch.personalize;

import java.io.IOException;
import java.math.BigInteger;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Stream;

import org.opensearch.common.xcontent.XContentFactory;
import org.opensearch.common.xcontent.XContentHelper;
import org.opensearch.core.common.bytes.BytesReference;
import org.opensearch.core.xcontent.MediaTypeRegistry;
import org.opensearch.core.xcontent.ToXContent;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.search.SearchExtBuilder;

/**
 * Whether, for whom and how strongly one search is personalised: its ext over the configuration.
 *
 * @param userId null when nothing names a user
 * @param sessionId null when unknown
 * @param windowSize hits to reorder
 * @param weight strength of the personal part, 0 to 1
 * @param attributes what is known of the user besides events; empty: nothing
 * @param diversity how unlike the page's hits are to be, 0 to 1
 * @param state least version of the user's state that will do; null: any
 */
record Controls(boolean enabled, String userId, String sessionId, int windowSize, double weight,
    Map<String, Object> attributes, double diversity, boolean explain, Long state) {

    private static final PersonalizeExtBuilder SILENT =
        new PersonalizeExtBuilder(null, Shopper.UNKNOWN, null, null, null, null, null);

    /** Where a user is named when ext.personalize and the configuration do not say, in order. */
    private static final List<String> USER_PATHS =
        List.of(ForeignExts.UBI + ".client_id", ForeignExts.AMAZON + ".user_id");

    /**
     * Reads a search's controls.
     *
     * @throws IllegalArgumentException (400) for a window that is larger than the node allows
     */
    static Controls of(List<SearchExtBuilder> exts, ProcessorConfig config) {
        PersonalizeExtBuilder own = own(exts);
        Shopper shopper = own.shopper();
        return new Controls(
            Objects.requireNonNullElse(own.enabled(), true),
            present(shopper.userId()) ? shopper.userId() : userIn(exts, config.userIdField()),
            present(shopper.sessionId()) ? shopper.sessionId() : null,
            windowSize(own.windowSize(), config),
            Objects.requireNonNullElse(own.weight(), config.weight()),
            shopper.attributes(),
            Objects.requireNonNullElse(own.diversity(), 0.0),
            Objects.requireNonNullElse(own.explain(), false),
            own.state()
        );
    }

    /** Returns whether a search carries the plugin's own section, switched on or off. */
    static boolean asks(List<SearchExtBuilder> exts) {
        return own(exts) != SILENT;
    }

    private static int windowSize(Integer asked, ProcessorConfig config) {
        if (asked != null && asked > config.maxWindowSize()) {
            throw new IllegalArgumentException(
                "ext.personalize.window_size is " + asked + ", must be 1-" + config.maxWindowSize()
            );
        }
        return asked == null ? Math.min(config.windowSize(), config.maxWindowSize()) : asked;
    }

    private static PersonalizeExtBuilder own(List<SearchExtBuilder> exts) {
        return exts.stream()
            .filter(PersonalizeExtBuilder.class::isInstance)
            .map(PersonalizeExtBuilder.class::cast)
            .findFirst()
            .orElse(SILENT);
    }

    private static String userIn(List<SearchExtBuilder> exts, String configuredPath) {
        Stream<String> paths = configuredPath.isEmpty()
            ? USER_PATHS.stream()
            : Stream.of(configuredPath);
        return paths.map(path -> textAt(exts, path))
            .filter(text -> text != null && text.isBlank() == false && Shopper.isShort(text))
            .findFirst()
            .orElse(null);
    }

    /**
     * Returns the text or number at {@code SECTION.KEY…} of any section, whichever plugin's class
     * holds it: every ext can write itself as JSON, and that is all that is asked of it.
     */
    static String textAt(List<SearchExtBuilder> exts, String path) {
        int dot = path.indexOf('.');
        String section = dot < 0 ? path : path.substring(0, dot);
        for (SearchExtBuilder ext : exts) {
            if (ext.getWriteableName().equals(section)) {
                return textIn(json(ext), path);
            }
        }
        return null;
    }

    /**
     * Returns what a section holds, under its name. Some classes write their section's name, some
     * (UBI's and Amazon's, by their version) the object that should stand behind it, some the
     * object's fields.
     */
    private static Map<String, Object> json(SearchExtBuilder ext) {
        String name = ext.getWriteableName();
        Map<String, Object> found = written(ext, null);
        if (found == null) {
            found = written(ext, name);
        }
        if (found == null) {
            return Map.of();
        }
        return found.containsKey(name) ? found : Map.of(name, found);
    }

    /** Returns what a section writes into an object, behind a name if one is given; or null. */
    private static Map<String, Object> written(SearchExtBuilder ext, String name) {
        try (XContentBuilder json = XContentFactory.jsonBuilder()) {
            json.startObject();
            if (name != null) {
                json.field(name);
            }
            ext.toXContent(json, ToXContent.EMPTY_PARAMS);
            BytesReference bytes = BytesReference.bytes(json.endObject());
            return XContentHelper.convertToMap(bytes, false, MediaTypeRegistry.JSON).v2();
        } catch (IOException | RuntimeException e) {
            return null; // no JSON comes of it
        }
    }

    private static String textIn(Map<String, Object> json, String path) {
        Object value = json;
        for (String key : path.split("\\.")) {
            value = value instanceof Map<?, ?> map ? map.get(key) : null;
        }
        boolean isWhole = value instanceof Integer || value instanceof Long
            || value instanceof BigInteger;
        return value instanceof String || isWhole ? value.toString() : null;
    }

    /** UBI clients send an absent user as the empty text. */
    private static boolean present(String text) {
        return text != null && text.isEmpty() == false;
    }
}
