package org.opensearch.personalize;

import java.util.Map;

import org.opensearch.core.common.io.stream.Writeable;
import org.opensearch.test.AbstractWireSerializingTestCase;

/** A request's section arrives at other nodes as it was sent; OpenSearch's own test of that. */
public class ExtWireTests extends AbstractWireSerializingTestCase<PersonalizeExtBuilder> {

    @Override
    protected PersonalizeExtBuilder createTestInstance() {
        return new PersonalizeExtBuilder(
            randomFrom(Boolean.TRUE, Boolean.FALSE, null),
            randomShopper(),
            randomBoolean() ? null : randomIntBetween(1, 1000),
            randomBoolean() ? null : randomDouble(),
            randomBoolean() ? null : randomDouble(),
            randomFrom(Boolean.TRUE, Boolean.FALSE, null),
            randomBoolean() ? null : randomNonNegativeLong()
        );
    }

    private Shopper randomShopper() {
        return new Shopper(
            randomBoolean() ? null : randomAlphaOfLength(8),
            randomBoolean() ? null : randomAlphaOfLength(8),
            randomBoolean() ? Map.of() : Map.of("age", randomAlphaOfLength(4), "size", randomInt())
        );
    }

    @Override
    protected Writeable.Reader<PersonalizeExtBuilder> instanceReader() {
        return PersonalizeExtBuilder::new;
    }
}
