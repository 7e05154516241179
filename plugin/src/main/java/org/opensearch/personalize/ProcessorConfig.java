package org.opensearch.personalize;

import java.net.URI;
import java.util.List;
import java.util.Map;

import org.opensearch.common.settings.ClusterSettings;
import org.opensearch.ingest.ConfigurationUtils;

/**
 * How one pipeline personalises; read from its configuration, with the node's settings as defaults.
 *
 * @param endpoint base URL of the sidecar
 * @param windowSize hits that are reordered when a search does not say
 * @param maxWindowSize largest window that a search may ask for
 * @param weight strength of the personal part, 0 to 1, when a search does not say
 * @param timeoutMs longest that a search waits for the sidecar
 * @param onFailure what a search gets when the sidecar cannot be used
 * @param itemIdField {@code _id}, or a field with doc values that holds the item's id
 * @param userIdField dotted path in {@code ext} that names the user when ext.personalize does not;
 *     empty: UBI's, then Amazon's
 */
record ProcessorConfig(URI endpoint, int windowSize, int maxWindowSize, double weight,
    int timeoutMs, OnFailure onFailure, String itemIdField, String userIdField) {

    static final String ENDPOINT = "endpoint";
    static final String WINDOW_SIZE = "window_size";
    static final String WEIGHT = "weight";
    static final String TIMEOUT_MS = "timeout_ms";
    static final String ON_FAILURE = "on_failure";
    static final String ITEM_ID_FIELD = "item_id_field";
    static final String USER_ID_FIELD = "user_id_field";
    static final String ID = "_id";
    static final int MAX_TIMEOUT_MS = 60_000;

    /** Returns the node's defaults, as they are now. */
    static ProcessorConfig defaults(ClusterSettings settings) {
        return new ProcessorConfig(
            URI.create(settings.get(PersonalizeSettings.ENDPOINT)),
            settings.get(PersonalizeSettings.WINDOW_SIZE),
            settings.get(PersonalizeSettings.MAX_WINDOW_SIZE),
            settings.get(PersonalizeSettings.WEIGHT),
            settings.get(PersonalizeSettings.TIMEOUT_MS),
            settings.get(PersonalizeSettings.ON_FAILURE),
            settings.get(PersonalizeSettings.ITEM_ID_FIELD),
            settings.get(PersonalizeSettings.USER_ID_FIELD)
        );
    }

    /**
     * Reads a processor's configuration, taking its keys out of {@code config}: what is left is
     * unknown, and OpenSearch refuses it.
     *
     * @param allowedHosts hosts that an endpoint may name, besides the default endpoint's
     * @throws org.opensearch.OpenSearchException (400) naming processor, tag and key
     */
    ProcessorConfig with(String tag, Map<String, Object> config, List<String> allowedHosts) {
        Reader reader = new Reader(tag, config);
        return new ProcessorConfig(
            reader.endpoint(endpoint, allowedHosts),
            reader.integer(WINDOW_SIZE, windowSize, PersonalizeSettings.MAX_WINDOW),
            maxWindowSize,
            reader.share(WEIGHT, weight),
            reader.integer(TIMEOUT_MS, timeoutMs, MAX_TIMEOUT_MS),
            reader.onFailure(onFailure),
            reader.name(ITEM_ID_FIELD, itemIdField),
            reader.name(USER_ID_FIELD, userIdField)
        );
    }

    ProcessorConfig with(OnFailure other) {
        return new ProcessorConfig(
            endpoint,
            windowSize,
            maxWindowSize,
            weight,
            timeoutMs,
            other,
            itemIdField,
            userIdField
        );
    }

    /**
     * Checks that a text is the base URL of a sidecar.
     *
     * @throws IllegalArgumentException saying what is wrong with it
     */
    static URI checkEndpoint(String text) {
        try {
            URI uri = URI.create(text);
            boolean isHttp = "http".equals(uri.getScheme()) || "https".equals(uri.getScheme());
            boolean isPlain = uri.getRawQuery() == null
                && uri.getRawUserInfo() == null
                && uri.getRawFragment() == null;
            if (isHttp && isPlain && uri.getHost() != null) {
                return uri;
            }
        } catch (IllegalArgumentException e) {
            // no URL at all: the same advice
        }
        throw new IllegalArgumentException("is [" + text + "], must be like http://HOST:PORT");
    }

    /** Takes keys out of a configuration; its errors name processor, tag and key. */
    private record Reader(String tag, Map<String, Object> config) {

        URI endpoint(URI fallback, List<String> allowedHosts) {
            String text = text(ENDPOINT, fallback.toString());
            URI uri;
            try {
                uri = checkEndpoint(text);
            } catch (IllegalArgumentException e) {
                throw error(ENDPOINT, e.getMessage());
            }
            boolean isDefault = uri.getHost().equals(fallback.getHost());
            if (isDefault == false && allowedHosts.contains(uri.getHost()) == false) {
                throw error(
                    ENDPOINT,
                    "names host [" + uri.getHost() + "], must be one of " + allowedHosts
                        + "; add it to " + PersonalizeSettings.ALLOWED_HOSTS.getKey()
                );
            }
            return uri;
        }

        int integer(String key, int fallback, int most) {
            Integer value = ConfigurationUtils.readIntProperty(type(), tag, config, key, fallback);
            if (value < 1 || value > most) {
                throw error(key, "is " + value + ", must be 1-" + most);
            }
            return value;
        }

        double share(String key, double fallback) {
            if (config.containsKey(key) == false) {
                return fallback;
            }
            double value = ConfigurationUtils.readDoubleProperty(type(), tag, config, key);
            if ((value >= 0.0 && value <= 1.0) == false) {
                throw error(key, "is " + value + ", must be 0-1");
            }
            return value;
        }

        OnFailure onFailure(OnFailure fallback) {
            String word = text(ON_FAILURE, fallback.word());
            try {
                return OnFailure.of(word);
            } catch (IllegalArgumentException e) {
                throw error(ON_FAILURE, "is [" + word + "], must be keep_order or fail");
            }
        }

        String name(String key, String fallback) {
            return text(key, fallback);
        }

        private String text(String key, String fallback) {
            return ConfigurationUtils.readStringProperty(type(), tag, config, key, fallback);
        }

        private RuntimeException error(String key, String reason) {
            String where = "of processor [" + type() + "] with tag [" + tag + "] ";
            return ConfigurationUtils.newConfigurationException(type(), tag, key, where + reason);
        }

        private static String type() {
            return PersonalizeExtBuilder.NAME;
        }
    }
}
