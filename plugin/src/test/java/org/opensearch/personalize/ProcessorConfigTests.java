package org.opensearch.personalize;

import java.net.URI;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.opensearch.OpenSearchException;
import org.opensearch.common.settings.ClusterSettings;
import org.opensearch.common.settings.Settings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** What a pipeline may say, and how it is told what it may not. */
class ProcessorConfigTests {

    private static final List<String> HOSTS = List.of("127.0.0.1", "sidecar");

    private final ProcessorConfig defaults = Fixtures.config(URI.create("http://own:8080"));

    @Test
    void everyKeyIsTakenOutOfTheConfiguration() {
        Map<String, Object> config = new HashMap<>(
            Map.of(
                "endpoint",
                "https://sidecar:9999/base",
                "window_size",
                50,
                "weight",
                0.25,
                "timeout_ms",
                20,
                "on_failure",
                "fail",
                "item_id_field",
                "sku",
                "user_id_field",
                "ubi.user_id",
                "surprise",
                1
            )
        );
        ProcessorConfig read = defaults.with("t", config, HOSTS);
        assertEquals(
            new ProcessorConfig(
                URI.create("https://sidecar:9999/base"),
                50,
                1000,
                0.25,
                20,
                OnFailure.FAIL,
                "sku",
                "ubi.user_id"
            ),
            read
        );
        assertEquals(Map.of("surprise", 1), config); // left for OpenSearch to refuse
    }

    @Test
    void nothingSaidMeansTheNodesDefaults() {
        assertEquals(defaults, defaults.with(null, new HashMap<>(), HOSTS));
    }

    @ParameterizedTest
    @CsvSource({
        "window_size, 0, 'is 0, must be 1-10000'",
        "window_size, 10001, 'is 10001, must be 1-10000'",
        "timeout_ms, 0, 'is 0, must be 1-60000'",
        "timeout_ms, 60001, 'is 60001, must be 1-60000'",
        "weight, -0.1, 'is -0.1, must be 0-1'",
        "weight, 1.1, 'is 1.1, must be 0-1'",
        "weight, NaN, 'is NaN, must be 0-1'",
        "on_failure, explode, 'is [explode], must be keep_order or fail'",
        "endpoint, nonsense, 'is [nonsense], must be like http://HOST:PORT'",
        "endpoint, 'ftp://sidecar', 'is [ftp://sidecar], must be like http://HOST:PORT'",
        "endpoint, 'http://u:p@sidecar', 'is [http://u:p@sidecar], must be like http://HOST:PORT'",
        "endpoint, 'http://elsewhere:1', 'names host [elsewhere], must be one of'" })
    void errorNamesProcessorTagAndKey(String key, String value, String reason) {
        Map<String, Object> config = new HashMap<>(Map.of(key, value));
        OpenSearchException error = assertThrows(
            OpenSearchException.class,
            () -> defaults.with("shop", config, HOSTS)
        );
        String message = error.getMessage();
        assertTrue(message.startsWith("[" + key + "] of processor [personalize]"), message);
        assertTrue(message.contains("with tag [shop] " + reason), message);
        assertEquals(List.of(key), error.getMetadata("opensearch.property_name"));
        assertEquals(400, error.status().getStatus());
    }

    @Test
    void hostOfTheDefaultEndpointNeedsNoFurtherLeave() {
        Map<String, Object> config = new HashMap<>(Map.of("endpoint", "http://own:1"));
        assertEquals(1, defaults.with("t", config, List.of()).endpoint().getPort());
    }

    @Test
    void defaultsComeFromTheNodesSettings() {
        Settings settings = Settings.builder()
            .put("plugins.personalize.endpoint", "http://10.0.0.1:1")
            .put("plugins.personalize.window_size", 7)
            .put("plugins.personalize.on_failure", "fail")
            .build();
        ProcessorConfig read = ProcessorConfig.defaults(Fixtures.clusterSettings(settings));
        assertEquals(URI.create("http://10.0.0.1:1"), read.endpoint());
        assertEquals(7, read.windowSize());
        assertEquals(OnFailure.FAIL, read.onFailure());
        assertEquals(100, read.timeoutMs());
    }

    @Test
    void settingThatCannotBeIsRefused() {
        ClusterSettings known = Fixtures.clusterSettings(Settings.EMPTY);
        Settings bad = Settings.builder().put("plugins.personalize.endpoint", "nowhere").build();
        var error =
            assertThrows(IllegalArgumentException.class, () -> known.validate(bad, true));
        assertTrue(error.getMessage().startsWith("[plugins.personalize.endpoint] is [nowhere]"));
        Settings worse = Settings.builder().put("plugins.personalize.on_failure", "maybe").build();
        assertThrows(IllegalArgumentException.class, () -> known.validate(worse, true));
    }
}
