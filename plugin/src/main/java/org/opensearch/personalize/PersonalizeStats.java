package org.opensearch.personalize;

import java.util.EnumMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.atomic.LongAdder;

/** Counts what became of this node's searches; one that met a processor is counted once. */
final class PersonalizeStats {

    private final LongAdder applied = new LongAdder();
    private final LongAdder cancelled = new LongAdder();
    private final Map<SkipReason, LongAdder> skipped = new EnumMap<>(SkipReason.class);

    PersonalizeStats() {
        for (SkipReason reason : SkipReason.values()) {
            skipped.put(reason, new LongAdder());
        }
    }

    void applied() {
        applied.increment();
    }

    void cancelled() {
        cancelled.increment();
    }

    void skipped(SkipReason reason) {
        skipped.get(reason).increment();
    }

    /** Counts an answered search; {@code reason} is null when it was personalised. */
    void count(SkipReason reason) {
        if (reason == null) {
            applied();
        } else {
            skipped(reason);
        }
    }

    long appliedCount() {
        return applied.sum();
    }

    long cancelledCount() {
        return cancelled.sum();
    }

    /** Returns how often each reason was met, reasons never met left out. */
    Map<String, Long> skippedCounts() {
        Map<String, Long> counts = new TreeMap<>();
        skipped.forEach((reason, count) -> {
            if (count.sum() > 0) {
                counts.put(reason.word(), count.sum());
            }
        });
        return counts;
    }
}
