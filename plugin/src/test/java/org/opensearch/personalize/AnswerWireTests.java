package org.opensearch.personalize;

import java.util.List;
import java.util.Map;

import org.opensearch.core.common.io.stream.Writeable;
import org.opensearch.test.AbstractWireSerializingTestCase;

/** What was done arrives at the node that asked as it was written. */
public class AnswerWireTests extends AbstractWireSerializingTestCase<PersonalizeAnswer> {

    @Override
    protected PersonalizeAnswer createTestInstance() {
        if (randomBoolean()) {
            return PersonalizeAnswer.skipped(randomFrom(SkipReason.values()), randomBoolean());
        }
        List<Map<String, Object>> hits = List.of(
            Map.of("_id", randomAlphaOfLength(4), "parts", Map.of("engine", randomDouble())),
            Map.of("_id", "b", "events", List.of("bought milk"))
        );
        return PersonalizeAnswer.applied(randomLong(), "m", randomBoolean() ? null : hits);
    }

    @Override
    protected Writeable.Reader<PersonalizeAnswer> instanceReader() {
        return PersonalizeAnswer::new;
    }
}
