package org.opensearch.personalize;

import java.util.function.LongSupplier;

/**
 * Leaves a sidecar alone that failed several times in a row, so that searches do not each wait out
 * their deadline for it; after a pause one search tries again.
 */
final class SidecarBreaker {

    private final int failuresToOpen;
    private final long pauseMs;
    private final LongSupplier clockMs;

    private int failures;
    private long pausedUntilMs;
    private boolean trialUnderWay;

    SidecarBreaker(int failuresToOpen, long pauseMs, LongSupplier clockMs) {
        this.failuresToOpen = failuresToOpen;
        this.pauseMs = pauseMs;
        this.clockMs = clockMs;
    }

    /** Returns whether the sidecar may be asked now; true while open makes the caller the trial. */
    synchronized boolean allows() {
        if (failures < failuresToOpen) {
            return true;
        }
        if (trialUnderWay || clockMs.getAsLong() < pausedUntilMs) {
            return false;
        }
        trialUnderWay = true;
        return true;
    }

    synchronized void succeeded() {
        failures = 0;
        trialUnderWay = false;
    }

    /** Counts a failure; returns whether it is the one that opens the breaker. */
    synchronized boolean failed() {
        boolean opens = failures == failuresToOpen - 1;
        failures = Math.min(failures + 1, failuresToOpen);
        pausedUntilMs = clockMs.getAsLong() + pauseMs;
        trialUnderWay = false;
        return opens;
    }

    /** Ends a call that says nothing about the sidecar, such as a cancelled search's. */
    synchronized void ended() {
        trialUnderWay = false;
    }
}
