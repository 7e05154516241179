package org.opensearch.personalize;

/**
 * Personalization steps aside; carries the reason that callers are told.
 *
 * <p>Without a stack trace: it is an everyday answer, not a bug.
 */
final class SkipException extends Exception {

    private static final long serialVersionUID = 1L;

    private final SkipReason reason;
    private final boolean isSidecars;

    SkipException(SkipReason reason, String detail) {
        this(reason, detail, null);
    }

    /**
     * Says whose failure it is.
     *
     * @param isSidecars false where this one search is at fault, and the next may do well
     */
    SkipException(SkipReason reason, String detail, boolean isSidecars) {
        super(detail, null, false, false);
        this.reason = reason;
        this.isSidecars = isSidecars;
    }

    SkipException(SkipReason reason, String detail, Throwable cause) {
        super(detail, cause, false, false);
        this.reason = reason;
        this.isSidecars = true;
    }

    /** Returns whether the sidecar failed, so that it may be left alone if it goes on. */
    boolean isSidecars() {
        return isSidecars;
    }

    SkipReason reason() {
        return reason;
    }
}
