package org.opensearch.personalize;

/**
 * Personalization steps aside; carries the reason that callers are told.
 *
 * <p>Without a stack trace: it is an everyday answer, not a bug.
 */
final class SkipException extends Exception {

    private static final long serialVersionUID = 1L;

    private final SkipReason reason;

    SkipException(SkipReason reason, String detail) {
        this(reason, detail, null);
    }

    SkipException(SkipReason reason, String detail, Throwable cause) {
        super(detail, cause, false, false);
        this.reason = reason;
    }

    SkipReason reason() {
        return reason;
    }
}
