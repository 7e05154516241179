package org.opensearch.personalize;

import java.io.IOException;
import java.net.URI;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

import org.opensearch.common.settings.ClusterSettings;
import org.opensearch.common.settings.Setting;
import org.opensearch.common.settings.Settings;
import org.opensearch.common.xcontent.json.JsonXContent;
import org.opensearch.core.xcontent.DeprecationHandler;
import org.opensearch.core.xcontent.NamedXContentRegistry;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.search.SearchExtBuilder;

/** What several tests build. */
final class Fixtures {

    private Fixtures() {}

    static ProcessorConfig config(URI endpoint) {
        return new ProcessorConfig(
            endpoint,
            100,
            1000,
            1.0,
            2000,
            OnFailure.KEEP_ORDER,
            ProcessorConfig.ID,
            ""
        );
    }

    static ClusterSettings clusterSettings(Settings settings) {
        Set<Setting<?>> known = new HashSet<>(ClusterSettings.BUILT_IN_CLUSTER_SETTINGS);
        known.addAll(PersonalizeSettings.all());
        return new ClusterSettings(settings, known);
    }

    static XContentParser json(String text) throws IOException {
        XContentParser parser = JsonXContent.jsonXContent.createParser(
            NamedXContentRegistry.EMPTY,
            DeprecationHandler.THROW_UNSUPPORTED_OPERATION,
            text
        );
        parser.nextToken();
        return parser;
    }

    static PersonalizeExtBuilder ext(String text) {
        try (XContentParser parser = json(text)) {
            return PersonalizeExtBuilder.fromXContent(parser);
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    static List<SearchExtBuilder> exts(String own) {
        return List.of(ext(own));
    }

    static ForeignExtBuilder foreign(String name, String text) {
        try (XContentParser parser = json(text)) {
            return ForeignExtBuilder.fromXContent(name, parser);
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }
}
