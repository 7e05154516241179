package org.opensearch.personalize;

import java.util.Locale;

/** What a search gets when personalization fails. */
enum OnFailure {
    /** The engine's order, with the reason in the response. */
    KEEP_ORDER,
    /** An error, for shops that would rather see it. */
    FAIL;

    String word() {
        return name().toLowerCase(Locale.ROOT);
    }

    static OnFailure of(String word) {
        for (OnFailure choice : values()) {
            if (choice.word().equals(word)) {
                return choice;
            }
        }
        throw new IllegalArgumentException(
            "on_failure is [" + word + "], must be one of keep_order, fail"
        );
    }
}
