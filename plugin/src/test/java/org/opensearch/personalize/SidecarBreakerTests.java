package org.opensearch.personalize;

import java.util.concurrent.atomic.AtomicLong;

import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** When a failing sidecar is left alone, on a clock of the test's. */
class SidecarBreakerTests {

    private final AtomicLong nowMs = new AtomicLong();
    private final SidecarBreaker breaker = new SidecarBreaker(3, 1000, nowMs::get);

    @Test
    void opensAfterFailuresInARowOnly() {
        breaker.failed();
        breaker.failed();
        breaker.succeeded();
        breaker.failed();
        assertFalse(breaker.failed());
        assertTrue(breaker.allows());
        assertTrue(breaker.failed()); // the one that opens it, told once
        assertFalse(breaker.allows());
    }

    @Test
    void oneTrialAfterThePauseDecides() {
        open();
        nowMs.addAndGet(999);
        assertFalse(breaker.allows());
        nowMs.addAndGet(1);
        assertTrue(breaker.allows());
        assertFalse(breaker.allows()); // the trial is under way
        assertFalse(breaker.failed());
        assertFalse(breaker.allows());
        nowMs.addAndGet(1000);
        assertTrue(breaker.allows());
        breaker.succeeded();
        assertTrue(breaker.allows());
        assertTrue(breaker.allows());
    }

    @Test
    void cancelledTrialLeavesRoomForTheNext() {
        open();
        nowMs.addAndGet(1000);
        assertTrue(breaker.allows());
        breaker.ended();
        assertTrue(breaker.allows());
    }

    private void open() {
        for (int i = 0; i < 3; i++) {
            breaker.failed();
        }
    }
}
