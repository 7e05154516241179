package org.opensearch.personalize;

import java.util.List;
import java.util.function.Function;

import org.opensearch.common.settings.SecureSetting;
import org.opensearch.common.settings.Setting;
import org.opensearch.common.settings.Setting.Property;
import org.opensearch.core.common.settings.SecureString;

/**
 * The plugin's settings of a node, all under {@code plugins.personalize}.
 *
 * <p>Those that a pipeline can also say are its defaults, read when a processor is built; the
 * others protect the node and are its operator's alone.
 */
final class PersonalizeSettings {

    private static final String PREFIX = "plugins.personalize.";
    static final int MAX_WINDOW = 10_000;

    static final Setting<String> ENDPOINT = new Setting<>(
        PREFIX + ProcessorConfig.ENDPOINT,
        "http://127.0.0.1:8080",
        Function.identity(),
        PersonalizeSettings::checkEndpoint,
        Property.NodeScope,
        Property.Dynamic
    );

    static final Setting<Integer> WINDOW_SIZE = Setting.intSetting(
        PREFIX + ProcessorConfig.WINDOW_SIZE,
        100,
        1,
        MAX_WINDOW,
        Property.NodeScope,
        Property.Dynamic
    );

    /** Largest window that a search or a pipeline gets; larger ones are cut to it. */
    static final Setting<Integer> MAX_WINDOW_SIZE = Setting.intSetting(
        PREFIX + "max_window_size",
        1000,
        1,
        MAX_WINDOW,
        Property.NodeScope,
        Property.Dynamic
    );

    static final Setting<Double> WEIGHT = Setting.doubleSetting(
        PREFIX + ProcessorConfig.WEIGHT,
        1.0,
        0.0,
        1.0,
        Property.NodeScope,
        Property.Dynamic
    );

    static final Setting<Integer> TIMEOUT_MS = Setting.intSetting(
        PREFIX + ProcessorConfig.TIMEOUT_MS,
        100,
        1,
        ProcessorConfig.MAX_TIMEOUT_MS,
        Property.NodeScope,
        Property.Dynamic
    );

    static final Setting<OnFailure> ON_FAILURE = new Setting<>(
        PREFIX + ProcessorConfig.ON_FAILURE,
        OnFailure.KEEP_ORDER.word(),
        OnFailure::of,
        Property.NodeScope,
        Property.Dynamic
    );

    static final Setting<String> ITEM_ID_FIELD = Setting.simpleString(
        PREFIX + ProcessorConfig.ITEM_ID_FIELD,
        ProcessorConfig.ID,
        Property.NodeScope,
        Property.Dynamic
    );

    static final Setting<String> USER_ID_FIELD = Setting.simpleString(
        PREFIX + ProcessorConfig.USER_ID_FIELD,
        "",
        Property.NodeScope,
        Property.Dynamic
    );

    /** Hosts that a pipeline may name: whoever may write pipelines may not reach any host. */
    static final Setting<List<String>> ALLOWED_HOSTS = Setting.listSetting(
        PREFIX + "allowed_hosts",
        List.of("127.0.0.1", "[::1]", "localhost"),
        Function.identity(),
        Property.NodeScope,
        Property.Dynamic
    );

    /** Authorization header for the sidecar, from the node's keystore; empty: none is sent. */
    static final Setting<SecureString> AUTHORIZATION = SecureSetting.secureString(
        PREFIX + "authorization",
        null
    );

    /** Calls to the sidecar under way at once; a search beyond them keeps the engine's order. */
    static final Setting<Integer> MAX_IN_FLIGHT = Setting.intSetting(
        PREFIX + "max_in_flight",
        256,
        1,
        Property.NodeScope
    );

    /** Failures in a row after which the sidecar is left alone. */
    static final Setting<Integer> BREAKER_FAILURES = Setting.intSetting(
        PREFIX + "breaker.failures",
        5,
        1,
        Property.NodeScope
    );

    /** How long the sidecar is left alone before one search tries it again. */
    static final Setting<Integer> BREAKER_PAUSE_MS = Setting.intSetting(
        PREFIX + "breaker.pause_ms",
        1000,
        0,
        Property.NodeScope
    );

    private PersonalizeSettings() {}

    private static void checkEndpoint(String text) {
        try {
            ProcessorConfig.checkEndpoint(text);
        } catch (IllegalArgumentException e) {
            String key = PREFIX + ProcessorConfig.ENDPOINT;
            throw new IllegalArgumentException("[" + key + "] " + e.getMessage());
        }
    }

    static List<Setting<?>> all() {
        return List.of(
            ENDPOINT,
            WINDOW_SIZE,
            MAX_WINDOW_SIZE,
            WEIGHT,
            TIMEOUT_MS,
            ON_FAILURE,
            ITEM_ID_FIELD,
            USER_ID_FIELD,
            ALLOWED_HOSTS,
            AUTHORIZATION,
            MAX_IN_FLIGHT,
            BREAKER_FAILURES,
            BREAKER_PAUSE_MS,
            ForeignExts.SETTING
        );
    }
}
