package org.opensearch.personalize;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Stream;

import org.opensearch.common.settings.Setting;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.plugins.SearchPlugin.SearchExtSpec;

/**
 * Which ext sections of other conventions this plugin accepts because nobody else does.
 *
 * <p>Two plugins that register one section keep a node from starting, and a plugin is not told what
 * its neighbours register. So the plugins folder is looked at for the known owners of a section,
 * and the setting has the last word.
 */
final class ForeignExts {

    static final String UBI = "ubi";
    static final String AMAZON = "personalize_request_parameters";

    /** Part of the name of the plugin that owns a section. */
    private static final Map<String, String> OWNERS =
        Map.of(UBI, "ubi", AMAZON, "search-processor");

    static final Setting<List<String>> SETTING = Setting.listSetting(
        "plugins.personalize.foreign_exts",
        Function.identity(),
        ForeignExts::unowned,
        Setting.Property.NodeScope
    );

    private ForeignExts() {}

    static List<SearchExtSpec<?>> specs(Settings settings) {
        List<SearchExtSpec<?>> specs = new ArrayList<>();
        for (String name : SETTING.get(settings)) {
            specs.add(
                new SearchExtSpec<>(
                    name,
                    in -> new ForeignExtBuilder(name, in),
                    parser -> ForeignExtBuilder.fromXContent(name, parser)
                )
            );
        }
        return specs;
    }

    private static List<String> unowned(Settings settings) {
        List<String> neighbours = neighbours(settings);
        return Stream.of(UBI, AMAZON)
            .filter(ext -> neighbours.stream().noneMatch(name -> name.contains(OWNERS.get(ext))))
            .toList();
    }

    private static List<String> neighbours(Settings settings) {
        String home = Environment.PATH_HOME_SETTING.get(settings);
        Path plugins = Path.of(home, "plugins");
        if (home.isEmpty() || Files.isDirectory(plugins) == false) {
            return List.of();
        }
        try (Stream<Path> folders = Files.list(plugins)) {
            return folders.map(folder -> folder.getFileName().toString()).toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
