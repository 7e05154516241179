package org.opensearch.personalize;

import java.util.Locale;

/**
 * Why a search came back in the engine's order; the same words as the sidecar's status header.
 *
 * <p>A reason is a failure when something that should have worked did not: those, and only those,
 * become errors under {@code on_failure: fail}.
 */
public enum SkipReason {
    DISABLED(false),
    ANONYMOUS(false),
    NO_HISTORY(false),
    NO_MODEL(false),
    GATED(false),
    SORT(false),
    SCROLL(false),
    SEARCH_AFTER(false),
    SLICE(false),
    SIZE_ZERO(false),
    BEYOND_WINDOW(false),
    NO_HITS(false),
    /** No hit of the window carries the item id field. */
    NO_IDS(false),
    /** No hit of the window is of the catalogue that the model knows. */
    UNKNOWN_ITEMS(false),
    /** The sidecar named a reason that this version does not know. */
    OTHER(false),
    TIMEOUT(true),
    STATE_UNAVAILABLE(true),
    STATE_BEHIND(true),
    RANKING_ERROR(true),
    /** OpenSearch failed at the widened search, and not at the client's own. */
    UPSTREAM_ERROR(true),
    /** Too many calls under way, here or in the sidecar. */
    OVERLOAD(true),
    /** Nobody took the connection, or it broke off. */
    SIDECAR_UNAVAILABLE(true),
    /** The sidecar answered with an error, or with something that is no order. */
    SIDECAR_ERROR(true),
    /** The sidecar failed several times in a row and is left alone for a while. */
    CIRCUIT_OPEN(true);

    private final boolean failure;

    SkipReason(boolean failure) {
        this.failure = failure;
    }

    /** Returns whether something that should have worked did not. */
    public boolean isFailure() {
        return failure;
    }

    /** Returns the word that clients see, such as {@code no_history}. */
    public String word() {
        return name().toLowerCase(Locale.ROOT);
    }

    /** Returns the reason with this word; {@link #OTHER} for a word that is not known here. */
    public static SkipReason of(String word) {
        for (SkipReason reason : values()) {
            if (reason.word().equals(word)) {
                return reason;
            }
        }
        return OTHER;
    }
}
