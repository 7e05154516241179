package org.opensearch.personalize;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.opensearch.common.settings.Settings;

import static org.junit.jupiter.api.Assertions.assertEquals;

/** Which sections are accepted, by what is installed beside this plugin. */
class ForeignExtsTests {

    @TempDir
    private Path home;

    @Test
    void sectionsThatNobodyOwnsAreAccepted() throws IOException {
        Files.createDirectories(home.resolve("plugins/opensearch-personalize"));
        assertEquals(List.of("ubi", "personalize_request_parameters"), accepted(Settings.EMPTY));
    }

    @Test
    void sectionsOfInstalledPluginsAreTheirs() throws IOException {
        Files.createDirectories(home.resolve("plugins/opensearch-ubi"));
        assertEquals(List.of("personalize_request_parameters"), accepted(Settings.EMPTY));
        Files.createDirectories(home.resolve("plugins/search-processor"));
        assertEquals(List.of(), accepted(Settings.EMPTY));
    }

    @Test
    void settingHasTheLastWord() throws IOException {
        Settings settings = Settings.builder()
            .putList("plugins.personalize.foreign_exts", "shop_params")
            .build();
        assertEquals(List.of("shop_params"), accepted(settings));
    }

    private List<String> accepted(Settings settings) {
        Settings node = Settings.builder().put("path.home", home.toString()).put(settings).build();
        return ForeignExts.specs(node).stream()
            .map(spec -> spec.getName().getPreferredName())
            .toList();
    }
}
